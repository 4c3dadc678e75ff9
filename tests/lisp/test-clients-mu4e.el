;;; test-clients-mu4e.el --- Sending from mu4e  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; With the real mu.  The names of mu4e's functions are those of 1.8 and 1.12.

;;; Code:

(require 'clients)

(defvar mu4e-contexts)
(defvar mu4e-main-mode-map)
(declare-function make-mu4e-context "ext:mu4e-context")
(declare-function mu4e "ext:mu4e")
(declare-function mu4e--main-queue-size "ext:mu4e-main")
(declare-function mu4e--main-toggle-mail-sending-mode "ext:mu4e-main")
(declare-function mu4e-compose-new "ext:mu4e-compose")
(declare-function mu4e-compose-reply "ext:mu4e-compose")
(declare-function mu4e-compose-resend "ext:mu4e-compose")
(declare-function mu4e-context-switch "ext:mu4e-context")
(declare-function mu4e-message-at-point "ext:mu4e-message")
(declare-function mu4e-quit "ext:mu4e")
(declare-function mu4e-root-maildir "ext:mu4e-server")
(declare-function mu4e-search "ext:mu4e-search")

(defmacro test-with-mu4e (&rest body)
  "Run BODY with mu4e started, on a maildir of its own, and the mode on."
  (declare (indent 0) (debug t))
  `(test-call-with-mu4e (lambda () ,@body)))

(defun test-call-with-mu4e (function)
  "Call FUNCTION for `test-with-mu4e'."
  (test-client-need 'mu4e "mu")
  (setf (alist-get "mu4e" test-client-versions nil nil #'equal)
        (symbol-value 'mu4e-mu-version))
  (let* ((test-maildir (test-new-maildir))
         (home (test-file "mu"))
         (message-kill-buffer-on-exit t)
         (message-auto-save-directory nil)
         (message-fcc-handler-function message-fcc-handler-function))
    (test-client-run "mu" "init" "--muhome" home "--maildir" test-maildir
              "--my-address" "me@example.org")
    (test-client-run "mu" "index" "--muhome" home)
    (cl-progv '(mu4e-mu-home mu4e-drafts-folder mu4e-sent-folder mu4e-trash-folder
                mu4e-sent-messages-behavior mu4e-confirm-quit mu4e-contexts
                mu4e-context-policy mu4e-compose-context-policy
                mu4e--context-current mu4e--server-props
                mu4e-index-update-in-background mu4e-get-mail-command
                mu4e-compose-complete-addresses mu4e-view-auto-mark-as-read)
        (list home "/drafts" "/sent" "/trash" 'sent nil nil nil nil nil nil nil "true" nil nil)
      (save-window-excursion
        (mu4e t)
        (unwind-protect
            (progn
              (sink-wait "mu" (lambda () (ignore-errors (mu4e-root-maildir))))
              (test-with-mode (funcall function)))
          (mu4e-quit))))))

(defmacro test-with-mu4e-mail (fields &rest body)
  "Run BODY in a mail composed in mu4e with the header FIELDS, a list of lines."
  (declare (indent 1) (debug t))
  `(test-with-composed buffer (mu4e-compose-new)
     (message-goto-to)
     (insert "you@example.com")
     (message-goto-subject)
     (insert "Test")
     (message-goto-eoh)
     (dolist (field ,fields)
       (insert field "\n"))
     (message-goto-body)
     (insert "Hello\n")
     ,@body))

(defmacro test-with-mu4e-old-mail (&rest body)
  "Run BODY in mu4e's list of mails, at the one that has come."
  (declare (indent 0) (debug t))
  `(progn
     (mu4e-search "subject:Old")
     (sink-wait "the mail" (lambda ()
                             (let ((buffer (get-buffer "*mu4e-headers*")))
                               (when buffer
                                 (set-buffer buffer)
                                 (goto-char (point-min))
                                 (mu4e-message-at-point 'noerror)))))
     (switch-to-buffer (current-buffer))
     ,@body))

(defun test-mu4e-await-compose ()
  "Wait for the mail that mu4e is about to show, and go to its buffer."
  (set-buffer (sink-wait "mu4e's compose buffer"
                         (lambda ()
                           (seq-find (lambda (buffer)
                                       (provided-mode-derived-p
                                        (buffer-local-value 'major-mode buffer)
                                        'message-mode))
                                     (buffer-list)))))
  (switch-to-buffer (current-buffer)))

(test-client test-clients-mu4e-send ("mu4e" "Send")
  (test-with-server nil
    (test-with-mu4e
      (test-with-mu4e-mail '("Cc: her@example.com")
        (message-send-and-exit)))
    (test-arrived 1 '("you@example.com" "her@example.com") "Hello\r\n")))

(test-client test-clients-mu4e-reply ("mu4e" "Send")
  (test-with-server nil
    (test-with-mu4e
      (test-with-mu4e-old-mail
        (test-with-composed reply
            (cl-letf (((symbol-function 'mu4e-read-option) (lambda (&rest _) 'reply))
                      ((symbol-function 'read-char-choice) (lambda (&rest _) ?r)))
              (mu4e-compose-reply)
              (test-mu4e-await-compose))
          (message-goto-body)
          (insert "Yes\n")
          (message-send-and-exit))))
    (test-arrived 1 '("friend@example.net") "References: <old@example.net>"
                  "Yes\r\n")))

(test-client test-clients-mu4e-copy-and-draft ("mu4e" "Copy")
  (test-with-server nil
    (test-with-mu4e
      (test-with-mu4e-mail nil
        (message-send-and-exit))
      (should (= 1 (length (test-client-folder "sent"))))
      (should (string-search "Hello\n" (car (test-client-folder "sent"))))
      (test-lacks (test-arrived 1 '("you@example.com")) "Fcc"))))

(test-client test-clients-mu4e-draft ("mu4e" "Draft")
  "It is deleted when the mail has been accepted, not before."
  (test-with-refusal
    (test-with-mu4e
      (let ((rs-smtpmail-synchronous t))
        (test-with-mu4e-mail nil
          (test-refused (message-send-and-exit))
          (should (= 1 (length (test-client-folder "drafts"))))
          (process-send-string test-server
                               (format "script %s\n" (cadr (test-script))))
          (test-empty-spool)
          (message-send-and-exit))
        (sink-wait "the end of the draft" (lambda () (not (test-client-folder "drafts"))))
        (should (= 1 (length (test-client-folder "sent"))))
        (test-received 1)
        (test-wait-for-state)))))

(test-client test-clients-mu4e-failure ("mu4e" "Failure")
  (test-with-refusal
    (test-with-mu4e
      (let ((rs-smtpmail-synchronous t))
        (test-with-mu4e-mail nil
          (test-refused (message-send-and-exit))
          (should (buffer-live-p buffer))
          (should-not (test-client-folder "sent")))))))

(test-client test-clients-mu4e-bcc ("mu4e" "Bcc")
  (test-with-server nil
    (test-with-mu4e
      (test-with-mu4e-mail '("Bcc: secret@example.net")
        (message-send-and-exit)))
    (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net"))
                "secret" "Bcc")))

(test-client test-clients-mu4e-context ("mu4e" "Account")
  (test-with-server nil
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server "nowhere.invalid")
          (smtpmail-smtp-service 1))
      (test-with-mu4e
        (setq mu4e-contexts
              (list (make-mu4e-context
                     :name "here"
                     :vars `((smtpmail-smtp-server . "localhost")
                             (smtpmail-smtp-service . ,port)))))
        (mu4e-context-switch nil "here")
        (test-with-mu4e-mail nil
          (message-send-and-exit))))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-mu4e-resend ("mu4e" "Resend")
  (test-with-server nil
    (test-with-mu4e
      (test-with-mu4e-old-mail
        (if (equal '(1 . 1) (func-arity #'mu4e-compose-resend))
            (mu4e-compose-resend "new@example.com")
          ;; 1.8 has it edited.
          (test-with-composed mail (progn (mu4e-compose-resend)
                                           (test-mu4e-await-compose))
            (message-goto-eoh)
            (insert "Resent-To: new@example.com\nResent-From: me@example.org\n")
            (message-send-and-exit)))))
    (test-arrived 1 '("new@example.com") "Resent-To: new@example.com" "Subject: Old"
                  "Hello\r\n")))

(test-client test-clients-mu4e-queue ("mu4e" "Queue")
  "Its switch between sending and queueing, and its count of queued mail."
  (test-with-server nil
    (let ((smtpmail-queue-mail nil))
      (make-directory smtpmail-queue-dir)
      (test-with-mu4e
        (mu4e--main-toggle-mail-sending-mode)
        (should smtpmail-queue-mail)
        (dolist (count '(1 2))
          (test-with-mu4e-mail nil
            (message-send-and-exit))
          (should (= count (mu4e--main-queue-size))))
        (should (= 0 (test-received-count)))
        (should (= 2 (length (test-client-folder "sent"))))
        (mu4e--main-toggle-mail-sending-mode)
        (should-not smtpmail-queue-mail)))))

(test-client test-clients-mu4e-flush ("mu4e" "Flush")
  "By its key, which is bound to smtpmail's command."
  (test-with-server nil
    (make-directory smtpmail-queue-dir)
    (test-with-mu4e
      (let ((smtpmail-queue-mail t))
        (dolist (_ '(1 2))
          (test-with-mu4e-mail '("Bcc: secret@example.net")
            (message-send-and-exit))))
      (should (= 2 (mu4e--main-queue-size)))
      (call-interactively (lookup-key mu4e-main-mode-map "f"))
      (should (= 0 (mu4e--main-queue-size)))
      (test-wait-for-state)
      (should (= 2 (test-received-count)))
      (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net"))
                  "secret"))))

(provide 'test-clients-mu4e)

;;; test-clients-mu4e.el ends here
