;;; test-mode.el --- The mode comes and goes without a trace  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)

(defconst test-mode-snapshot
  '(lambda ()
     (let ((print-circle t) (print-length nil) (print-level nil) snapshot)
       (mapatoms
        (lambda (symbol)
          (let ((name (symbol-name symbol)))
            (unless (string-prefix-p "rs-smtp" name)
              (when (and (boundp symbol)
                         (string-match-p "\\(?:-hooks?\\|-functions\\|-alist\\)\\'\\|mail\\|\\`message-\\|mode-line\\|mode-string\\|\\`timer"
                                         name)
                         ;; What Emacs itself does with each file and message.
                         (not (string-match-p "\\`\\(?:after-load-\\|load-\\|mail-extr-\\|message-log\\|message-unique\\)\\|\\`timer-event" name)))
                (push (list symbol (prin1-to-string (default-value symbol)))
                      snapshot))
              (when (string-match-p "mail\\|\\`message-" name)
                (push (list symbol (fboundp symbol)
                            (and (fboundp symbol)
                                 (not (autoloadp (symbol-function symbol)))
                                 (advice--p (symbol-function symbol)))
                            (get symbol 'defalias-fset-function)
                            (get symbol 'advice--pending))
                      snapshot))))))
       snapshot))
  "A form for a function that returns what the mode might change.")

(defconst test-mode-send
  '(with-temp-buffer
     (insert "From: me@example.org\nTo: you@example.com\n\nHello\n")
     (let ((mail-header-separator ""))
       (smtpmail-send-it)))
  "A form that sends a mail.")

(defun test-mode-trace (&rest forms)
  "Return the symbols that are different after FORMS in another Emacs."
  (read
   (test-emacs-output
    `(progn
       (require 'cl-lib)
       (require 'rs-smtpmail)
       (require 'rs-smtpmail-message)
       ;; What sending loads.
       (let ((smtpmail-queue-mail t))
         ,test-mode-send)
       (let* ((snapshot ,test-mode-snapshot)
              (before (progn (setq smtpmail-address-buffer nil)
                             (funcall snapshot)))
              (known (make-hash-table)))
         (dolist (one before)
           (push one (gethash (car one) known)))
         (setq inhibit-message t)
         ,@forms
         (prin1 (delete-dups
                 (delq nil
                       (mapcar (lambda (one)
                                 (let ((olds (gethash (car one) known)))
                                   (and olds (not (member one olds))
                                        (car one))))
                               (funcall snapshot))))))))))

(ert-deftest test-mode-is-seen-by-the-test ()
  (let ((trace (test-mode-trace '(rs-smtpmail-mode 1))))
    (dolist (symbol '(smtpmail-via-smtp smtpmail-send-it timer-idle-list
                      send-mail-function))
      (should (memq symbol trace)))))

(ert-deftest test-mode-leaves-no-trace ()
  (should-not (test-mode-trace '(rs-smtpmail-mode 1) '(rs-smtpmail-mode -1)))
  ;; On twice, off once.
  (should-not (test-mode-trace '(rs-smtpmail-mode 1) '(rs-smtpmail-mode 1)
                               '(rs-smtpmail-mode -1))))

(ert-deftest test-mode-leaves-the-engine-only ()
  "After a mail has been sent, leaving Emacs must still look after the engine."
  (test-with-server nil
    (let ((rs-smtpmail-spool-directory (file-name-as-directory (test-file "spool"))))
      (should
       (seq-set-equal-p
        '(kill-emacs-hook kill-emacs-query-functions)
        (test-mode-trace
         '(rs-smtpmail-mode 1)
         test-mode-send
         '(rs-smtpmail-mode -1)
         ;; smtpmail leaves a killed buffer there.
         '(setq smtpmail-address-buffer nil)))))
    (should (= 1 (test-received-count)))))

(ert-deftest test-mode-covers-what-is-loaded-later ()
  (should (equal "(t t nil nil)"
                 (test-emacs-output
                  '(cl-flet ((advised ()
                               (mapcar (lambda (function)
                                         (and (advice--p (symbol-function function)) t))
                                       '(smtpmail-send-it smtpmail-via-smtp))))
                     (require 'rs-smtpmail)
                     (rs-smtpmail-mode 1)
                     (load "smtpmail" nil t)
                     (let ((on (advised)))
                       (rs-smtpmail-mode -1)
                       (princ (append on (advised)))))
                  '("-l" "cl-lib")))))

(provide 'test-mode)

;;; test-mode.el ends here
