;;; test-unload.el --- Unloading the package, and loading it again  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'test-mode)

(defconst test-unload-form
  '(let ((inhibit-message t))
     (unload-feature 'rs-smtpmail t))
  "A form that unloads the package.")

(defun test-unload (&rest forms)
  "Evaluate FORMS in another Emacs; return what it printed."
  (let ((rs-smtpmail-spool-directory (file-name-as-directory (test-file "spool"))))
    (test-emacs-output `(progn ,@forms))))

(ert-deftest test-unload-leaves-no-trace ()
  "With the mode on, or after it was on."
  (dolist (last '(1 -1))
    (should-not (test-mode-trace '(rs-smtpmail-mode 1)
                                 `(rs-smtpmail-mode ,last)
                                 test-unload-form
                                 ;; On at all times.
                                 '(advice-add 'message-multi-smtp-send-mail :around
                                              'rs-smtpmail--around-multi-smtp
                                              '((depth . 100)))))))

(ert-deftest test-unload-leaves-smtpmail-as-it-was ()
  (test-with-server nil
    (should
     (string-suffix-p
      "(nil nil nil nil nil nil)"
      (test-unload
       '(require 'message)
       '(require 'rs-smtpmail)
       '(rs-smtpmail-mode 1)
       test-mode-send
       test-unload-form
       ;; By plain smtpmail, which has no advice any more.
       test-mode-send
       '(princ
         (list (advice--p (symbol-function 'smtpmail-send-it))
               (advice--p (symbol-function 'smtpmail-via-smtp))
               (advice--p (symbol-function 'message-multi-smtp-send-mail))
               (seq-filter (lambda (timer)
                             (string-prefix-p
                              "rs-smtp" (format "%s" (timer--function timer))))
                           (append timer-list timer-idle-list))
               (seq-filter (lambda (function)
                             (string-prefix-p "rs-smtp" (format "%s" function)))
                           (append kill-emacs-hook kill-emacs-query-functions))
               (seq-filter (lambda (feature)
                             (string-prefix-p "rs-smtpmail" (symbol-name feature)))
                           features))))))
    (setq test-foreign-connections '(2))
    (should (= 2 (test-received-count)))))

(ert-deftest test-unload-and-load-again ()
  "More than once, each time with a mail, and events that are heard."
  (test-with-server nil
    (test-unload
     '(defvar my-heard 0)
     `(dotimes (_ 3)
        (require 'rs-smtpmail)
        (rs-smtpmail-mode 1)
        (setq rs-smtpmail-sent-functions
              (list (lambda (_entry) (setq my-heard (1+ my-heard)))))
        ,test-mode-send
        ,test-unload-form)
     '(unless (= my-heard 3) (error "Events: %d" my-heard)))
    (should (= 3 (test-received-count)))))

(ert-deftest test-unload-tells-what-is-left ()
  "What was not sent stays in the spool."
  (test-with-server nil
    (should
     (string-search
      "1 message stays in"
      (test-unload
       '(require 'rs-smtpmail)
       '(setq rs-smtpmail-synchronous nil
              rs-smtpmail-undo-delay 600)
       '(with-temp-buffer
          (insert "From: me@example.org\nTo: you@example.com\n\nHello\n")
          (let ((mail-header-separator ""))
            (rs-smtpmail-send-it)))
       '(unload-feature 'rs-smtpmail t))))
    (should (= 0 (test-received-count)))))

(ert-deftest test-unload-leaves-what-others-have-kept ()
  "A function of the user's may have kept `smtpmail-via-smtp' with our advice."
  (test-with-server nil
    (test-unload
     '(require 'rs-smtpmail)
     '(rs-smtpmail-mode 1)
     '(fset 'my-original (symbol-function 'smtpmail-via-smtp))
     '(defun smtpmail-via-smtp (recipients buffer)
        (my-original recipients buffer))
     test-unload-form
     test-mode-send)
    (setq test-foreign-connections '(1))
    (should (= 1 (test-received-count)))))

(provide 'test-unload)

;;; test-unload.el ends here
