;;; rs-smtpmail-build.el --- Find and check the native module  -*- lexical-binding: t -*-

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
  "Return the directory of this package's Lisp files, not that of links to them.
For package managers make directories of links, which they empty at will."
  (let* ((library (or (locate-library "rs-smtpmail-build")
                      (error "The rs-smtpmail package is not on `load-path'")))
         (source (concat (file-name-sans-extension library) ".el")))
    (file-name-directory
     (file-truename (if (file-exists-p source) source library)))))

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

(provide 'rs-smtpmail-build)

;;; rs-smtpmail-build.el ends here
