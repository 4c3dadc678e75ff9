;;; rs-smtpmail-build.el --- Find, check and build the native module  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The module lies beside the Lisp files or elsewhere on `load-path', with a
;; file that tells its version beside it: what is mapped into a running Emacs
;; can't be replaced, so that a wrong one must be told before.

;;; Code:

(require 'rs-smtpmail)

(declare-function rs-smtp-version "ext:rs-smtpmail-module" () t)

(defconst rs-smtpmail--module-name "rs-smtpmail-module"
  "File name of the native module, without its suffix.")

(defun rs-smtpmail--lisp-directory ()
  "Return the directory of this package's Lisp files."
  (file-name-directory (or (locate-library "rs-smtpmail-build")
                           (error "The rs-smtpmail package is not on `load-path'"))))

(defun rs-smtpmail--module-file ()
  "Return the file name of the native module, or nil if there is none."
  (locate-file rs-smtpmail--module-name
               (cons (rs-smtpmail--lisp-directory) load-path)
               (list module-file-suffix)))

(defun rs-smtpmail--module-file-version (file)
  "Return the version that belongs to the module FILE, or nil if unknown."
  (let ((version (concat (file-name-sans-extension file) ".version")))
    (when (file-readable-p version)
      (with-temp-buffer
        (insert-file-contents version)
        (string-trim (buffer-string))))))

(defun rs-smtpmail--check-version (version file)
  "Signal an error unless VERSION, that of the module FILE, is ours."
  (unless (equal version rs-smtpmail-version)
    (error "Module %s has version %s, but rs-smtpmail is %s; \
build it anew with M-x rs-smtpmail-compile-module, then restart Emacs"
           file version rs-smtpmail-version)))

(defun rs-smtpmail--map-module ()
  "Map the native module into this Emacs, after checking it."
  (unless (featurep 'rs-smtpmail-module)
    (unless module-file-suffix
      (error "This Emacs was built without support for dynamic modules, \
which rs-smtpmail needs"))
    (let ((file (rs-smtpmail--module-file)))
      (unless file
        (error "Module %s%s is neither in %s nor on `load-path'; \
build it with M-x rs-smtpmail-compile-module"
               rs-smtpmail--module-name module-file-suffix
               (rs-smtpmail--lisp-directory)))
      (let ((version (rs-smtpmail--module-file-version file)))
        (when version
          (rs-smtpmail--check-version version file)))
      (module-load (expand-file-name file))
      (rs-smtpmail--check-version (rs-smtp-version) file))))

(defun rs-smtpmail--source-directory ()
  "Return the directory with the sources of the module, or nil."
  (seq-find (lambda (directory)
              (and (file-exists-p (expand-file-name "Cargo.toml" directory))
                   (file-exists-p (expand-file-name "Makefile" directory))))
            (list (rs-smtpmail--lisp-directory)
                  (expand-file-name ".." (rs-smtpmail--lisp-directory)))))

;;;###autoload
(defun rs-smtpmail-compile-module ()
  "Build the native module from its sources, in a compilation buffer.
This needs Rust and make."
  (interactive)
  (unless module-file-suffix
    (user-error "This Emacs was built without support for dynamic modules"))
  (let ((default-directory
         (file-name-as-directory
          (or (rs-smtpmail--source-directory)
              (user-error "The sources of the module are not in %s or above it"
                          (rs-smtpmail--lisp-directory))))))
    (compilation-start "make module" nil
                       (lambda (_mode) "*rs-smtpmail-compile-module*"))
    (when (featurep 'rs-smtpmail-module)
      (message "Restart Emacs when the module is built; the old one is in use"))))

(provide 'rs-smtpmail-build)

;;; rs-smtpmail-build.el ends here
