;;; run.el --- Run all ERT suites  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; tests/isolated emacs -Q --batch -L lisp -L tests/lisp -l tests/lisp/run.el
;; or without --batch, in a terminal.
;; Environment: RS_SMTPMAIL_TEST_TIMEOUT_SCALE (see helper.el);
;; RS_SMTPMAIL_TEST_SELECTOR, an ERT selector such as a regexp in quotes;
;; RS_SMTPMAIL_TEST_REPORT, a file for what the table of clients is made of;
;; RS_SMTPMAIL_TEST_LOG, a file for what is said, where nobody sees it.

;;; Code:

(require 'ert)
(require 'helper)
(require 'clients)

(setq message-log-max t)

(dolist (suite (directory-files (file-name-directory load-file-name)
                                t "\\`test-.*\\.el\\'"))
  ;; Some need others.
  (unless (featurep (intern (file-name-base suite)))
    (load suite nil t)))

(defun run-write-report (file)
  "Write what the table of clients is made of into FILE."
  (with-temp-file file
    (let ((print-length nil) (print-level nil))
      (prin1 (list :emacs emacs-version
                   :clients test-client-versions
                   :features test-client-features
                   :results (test-client-results))
             (current-buffer)))))

(defun run-all ()
  "Run what is asked for; return the number of unexpected results."
  (let* ((selector (getenv "RS_SMTPMAIL_TEST_SELECTOR"))
         (report (getenv "RS_SMTPMAIL_TEST_REPORT"))
         (log (getenv "RS_SMTPMAIL_TEST_LOG"))
         (stats (unwind-protect
                    (ert-run-tests-batch
                     (if selector (car (read-from-string selector)) t))
                  (when log
                    (with-current-buffer (messages-buffer)
                      (let ((coding-system-for-write 'utf-8))
                        (write-region nil nil log nil 'silent)))))))
    (when report
      (run-write-report report))
    (ert-stats-completed-unexpected stats)))

(if noninteractive
    (kill-emacs (if (zerop (run-all)) 0 1))
  ;; Nobody is there to answer.
  (add-hook 'minibuffer-setup-hook
            (lambda ()
              (unless (or executing-kbd-macro unread-command-events)
                (error "Unexpected question: %s" (minibuffer-prompt)))))
  ;; Questions need the terminal, which is not there yet.
  (add-hook 'emacs-startup-hook
            (lambda ()
              (let ((status 2))
                ;; With a handler for errors ERT would not see those of a test.
                (unwind-protect
                    (setq status (if (zerop (run-all)) 0 1))
                  (kill-emacs status))))))

;;; run.el ends here
