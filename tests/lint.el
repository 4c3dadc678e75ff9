;;; lint.el --- Byte-compile and check the Lisp files  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; tests/isolated emacs -Q --batch -L lisp -l tests/lint.el FILE...
;; Fails on any warning of the byte-compiler, checkdoc, check-declare or
;; package-lint, and leaves no compiled file behind.

;;; Code:

(require 'bytecomp)
(require 'check-declare)
(require 'checkdoc)
(let ((default-directory "/usr/share/emacs/site-lisp/elpa/"))
  (when (file-directory-p default-directory)
    (normal-top-level-add-subdirs-to-load-path)))
(require 'package-lint)

(defvar lint-complaints 0 "The number of complaints so far.")

(defun lint-complain (format &rest arguments)
  "Print a complaint, made of FORMAT and ARGUMENTS, and count it."
  (setq lint-complaints (1+ lint-complaints))
  (message "%s" (apply #'format format arguments)))

(defun lint-compile (file)
  "Byte-compile FILE; every warning is a complaint."
  (let* ((byte-compile-error-on-warn t)
         (compiled (make-temp-file "lint" nil ".elc"))
         (byte-compile-dest-file-function (lambda (_) compiled)))
    (unless (byte-compile-file file)
      (lint-complain "%s: does not byte-compile cleanly" file))
    (delete-file compiled)))

(defun lint-checkdoc (file)
  "Run checkdoc on FILE."
  (let ((checkdoc-create-error-function
         (lambda (text start _end &optional _unfixable)
           (lint-complain "%s:%d: %s" file
                          (line-number-at-pos (or start (point-min))) text)
           nil)))
    (with-current-buffer (find-file-noselect file)
      (checkdoc-current-buffer t))))

(defun lint-package (file main)
  "Run package-lint on FILE of the package whose main file is MAIN."
  (let ((package-lint-main-file main))
    (with-current-buffer (find-file-noselect file)
      (pcase-dolist (`(,line ,_column ,type ,text) (package-lint-buffer))
        ;; It looks packages up in archives that are not reached from here, and an
        ;; old one does not know of newer versions of Emacs.
        (unless (string-match-p "not available in any package archive\\|uninstallable" text)
          (lint-complain "%s:%s: %s: %s" file line type text))))))

(let* ((files command-line-args-left)
       (main (seq-find (lambda (file) (string-match-p "/rs-smtpmail\\.el\\'" file)) files)))
  (setq command-line-args-left nil)
  (dolist (file files)
    (lint-compile file)
    (lint-checkdoc file)
    (lint-package file (expand-file-name main)))
  (when (apply #'check-declare-files files)
    (lint-complain "check-declare: see above"))
  (message "lint: %d files, %d complaints" (length files) lint-complaints)
  (kill-emacs (if (zerop lint-complaints) 0 1)))

;;; lint.el ends here
