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

(rs-smtpmail--map-module)

(provide 'rs-smtpmail-native)

;;; rs-smtpmail-native.el ends here
