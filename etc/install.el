;;; install.el --- What `make' and `make install' need of Emacs  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Every Emacs has on its `load-path' directories named site-lisp, and activates the packages
;; that are in a directory elpa of these, whoever starts it.  So the Lisp files go into one of
;; the former, and a package that has nothing but the autoloads into the latter.

;;; Code:

(require 'package)

(defun install-stage ()
  "Prepare what `make install' copies, in the directory named on the command line."
  (let* ((stage (file-name-as-directory (expand-file-name (pop command-line-args-left))))
         (main (expand-file-name "lisp/rs-smtpmail.el"))
         (description (with-temp-buffer
                        (insert-file-contents main)
                        (package-buffer-info)))
         (package (expand-file-name (concat "elpa/" (package-desc-full-name description) "/")
                                    stage)))
    (delete-directory stage t)
    (make-directory package t)
    (dolist (file (directory-files "lisp" t "\\.el\\'"))
      (copy-file file stage nil t))
    (push stage load-path)
    (dolist (file (directory-files stage t "\\.el\\'"))
      (unless (byte-compile-file file)
        (kill-emacs 1)))
    (package-generate-autoloads "rs-smtpmail" stage)
    (rename-file (expand-file-name "rs-smtpmail-autoloads.el" stage) package)
    (package-generate-description-file description
                                       (expand-file-name "rs-smtpmail-pkg.el" package))))

(defun install-known-directories ()
  "Return the directories named site-lisp that this Emacs looks into.
Those that are of this version of Emacs only come last."
  (let ((known (seq-filter (lambda (directory)
                             (equal "site-lisp" (file-name-nondirectory directory)))
                           (mapcar #'directory-file-name load-path)))
        (versioned (regexp-quote (concat "/" emacs-version "/"))))
    (append (seq-remove (lambda (directory) (string-match-p versioned directory)) known)
            (seq-filter (lambda (directory) (string-match-p versioned directory)) known))))

(defun install-print-directory ()
  "Print the directory for Lisp files under the prefix named on the command line."
  (let ((prefix (file-name-as-directory (expand-file-name (pop command-line-args-left)))))
    (princ (or (seq-find (lambda (directory) (string-prefix-p prefix directory))
                         (install-known-directories))
               (concat prefix "share/emacs/site-lisp")))))

(defun install-check-directory ()
  "Give a notice if Emacs ignores the directory named on the command line."
  (let ((directory (pop command-line-args-left))
        (known (install-known-directories)))
    (unless (member (directory-file-name directory) known)
      (message "Emacs does not look into %s by itself.  Put this into your init file:
    (add-to-list 'load-path %S)
    (require 'rs-smtpmail)
or name another directory by LISPDIR: %s"
               directory directory (string-join known ", ")))))

;;; install.el ends here
