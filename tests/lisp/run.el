;;; run.el --- Run all ERT suites  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; emacs -Q --batch -L lisp -L tests/lisp -l tests/lisp/run.el
;; Environment: RS_SMTPMAIL_TEST_TIMEOUT_SCALE (see helper.el);
;; RS_SMTPMAIL_TEST_SELECTOR, an ERT selector such as a regexp in quotes.

;;; Code:

(require 'ert)
(require 'helper)

(dolist (suite (directory-files (file-name-directory load-file-name)
                                t "\\`test-.*\\.el\\'"))
  (load suite nil t))

(let ((selector (getenv "RS_SMTPMAIL_TEST_SELECTOR")))
  (ert-run-tests-batch-and-exit (if selector (car (read-from-string selector)) t)))

;;; run.el ends here
