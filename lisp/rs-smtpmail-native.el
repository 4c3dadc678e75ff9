;;; rs-smtpmail-native.el --- Maps the native module when loaded  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The autoloads of the native functions name this file: the first call of
;; one of them loads it, and so maps the module, which defines them all.
;; (They can't name the module itself, which must be checked before.)

;;; Code:

(require 'rs-smtpmail-build)
(require 'rs-smtpmail-engine)

(defun rs-smtpmail--save-module ()
  "Keep the module's functions, for this package is being unloaded.
A module can't be mapped a second time."
  (let (functions)
    (mapatoms (lambda (symbol)
                (when (and (string-prefix-p "rs-smtp-" (symbol-name symbol))
                           (module-function-p (symbol-function symbol)))
                  (push (cons symbol (symbol-function symbol)) functions))))
    (put 'rs-smtpmail-module 'rs-smtpmail-functions functions)))

(defun rs-smtpmail--restore-module ()
  "Define the functions of a module that this Emacs has mapped before."
  (let ((functions (get 'rs-smtpmail-module 'rs-smtpmail-functions)))
    (when functions
      (pcase-dolist (`(,symbol . ,function) functions)
        (defalias symbol function))
      (rs-smtpmail--check-version (rs-smtp-version) "in use")
      (provide 'rs-smtpmail-module)
      (rs-smtpmail--attach-again))))

(rs-smtpmail--restore-module)
(rs-smtpmail--map-module)

(provide 'rs-smtpmail-native)

;;; rs-smtpmail-native.el ends here
