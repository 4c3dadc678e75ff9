;;; test-clients-notmuch.el --- Sending from notmuch  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'clients)

(declare-function notmuch-draft-postpone "ext:notmuch-draft")
(declare-function notmuch-mua-new-mail "ext:notmuch-mua")
(declare-function notmuch-mua-reply "ext:notmuch-mua")
(declare-function notmuch-mua-send-and-exit "ext:notmuch-mua")
(declare-function notmuch-draft-resume "ext:notmuch-draft")
(declare-function notmuch-show-resend-message "ext:notmuch-show")
(declare-function notmuch-show "ext:notmuch-show")

(defmacro test-with-notmuch (&rest body)
  "Run BODY with a database of notmuch of its own, and the mode on."
  (declare (indent 0) (debug t))
  `(test-call-with-notmuch (lambda () ,@body)))

(defun test-call-with-notmuch (function)
  "Call FUNCTION for `test-with-notmuch'."
  (test-client-need 'notmuch "notmuch")
  (setf (alist-get "notmuch" test-client-versions nil nil #'equal)
        (symbol-value 'notmuch-emacs-version))
  (let* ((test-maildir (test-new-maildir))
         (config (test-file "notmuch-config"))
         (process-environment (cons (concat "NOTMUCH_CONFIG=" config)
                                    process-environment))
         (message-kill-buffer-on-exit t))
    (with-temp-file config
      (insert (format "[database]\npath=%s\n[user]\nname=Me\n\
primary_email=me@example.org\n[new]\ntags=inbox\n[maildir]\nsynchronize_flags=false\n"
                      test-maildir)))
    (test-client-run "notmuch" "new" "--quiet")
    (cl-progv '(notmuch-fcc-dirs notmuch-draft-folder notmuch-identities)
        (list "sent" "drafts" nil)
      (save-window-excursion
        (test-with-mode (funcall function))))))

(defmacro test-with-notmuch-mail (fields &rest body)
  "Run BODY in a mail composed in notmuch with the header FIELDS, a list of lines."
  (declare (indent 1) (debug t))
  `(test-with-composed buffer (notmuch-mua-new-mail)
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

(test-client test-clients-notmuch-send ("notmuch" "Send")
  (test-with-server nil
    (test-with-notmuch
      (test-with-notmuch-mail '("Cc: her@example.com")
        (notmuch-mua-send-and-exit)
        (should-not (buffer-live-p buffer))))
    (test-arrived 1 '("you@example.com" "her@example.com") "Hello\r\n")))

(test-client test-clients-notmuch-reply ("notmuch" "Send")
  (test-with-server nil
    (test-with-notmuch
      (test-with-composed reply (notmuch-mua-reply "id:old@example.net")
        (message-goto-body)
        (insert "Yes\n")
        (notmuch-mua-send-and-exit)))
    (test-arrived 1 '("friend@example.net") "In-Reply-To: <old@example.net>"
                  "Yes\r\n")))

(test-client test-clients-notmuch-fcc ("notmuch" "Copy")
  (test-with-server nil
    (test-with-notmuch
      (test-with-notmuch-mail nil
        (notmuch-mua-send-and-exit))
      (should (string-search "Hello\n" (car (test-client-folder "sent"))))
      (test-lacks (test-arrived 1 '("you@example.com")) "Fcc"))))

(test-client test-clients-notmuch-failure ("notmuch" "Failure")
  (test-with-refusal
    (test-with-notmuch
      (let ((rs-smtpmail-synchronous t))
        (test-with-notmuch-mail nil
          (test-refused (notmuch-mua-send-and-exit))
          (should (buffer-live-p buffer))
          (should (buffer-modified-p))
          (should-not (test-client-folder "sent")))))))

(test-client test-clients-notmuch-bcc ("notmuch" "Bcc")
  (test-with-server nil
    (test-with-notmuch
      (test-with-notmuch-mail '("Bcc: secret@example.net")
        (notmuch-mua-send-and-exit)))
    (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net"))
                "secret" "Bcc")))

(test-client test-clients-notmuch-account ("notmuch" "Account")
  (test-with-server nil
    (test-with-notmuch
      (let ((method (format "X-Message-SMTP-Method: smtp localhost %d"
                            smtpmail-smtp-service))
            (smtpmail-smtp-server "nowhere.invalid")
            (smtpmail-smtp-service 1))
        (test-with-notmuch-mail (list method)
          (notmuch-mua-send-and-exit))))
    (test-lacks (test-arrived 1 '("you@example.com")) "SMTP-Method")))

(test-client test-clients-notmuch-resend ("notmuch" "Resend")
  (test-with-server nil
    (test-with-notmuch
      (test-with-composed show (notmuch-show "id:old@example.net")
        (cl-letf (((symbol-function 'y-or-n-p) #'always))
          (notmuch-show-resend-message "new@example.com"))))
    (test-arrived 1 '("new@example.com") "Resent-To: new@example.com" "Subject: Old"
                  "Hello\r\n")))

(test-client test-clients-notmuch-queue ("notmuch" "Queue")
  (test-with-server nil
    (test-with-notmuch
      (test-queue-and-flush
        (test-with-notmuch-mail '("Bcc: secret@example.net")
          (notmuch-mua-send-and-exit)))
      (should (= 1 (length (test-client-folder "sent")))))
    (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net")) "secret")))

(test-client test-clients-notmuch-flush ("notmuch" "Flush")
  (test-with-refusal
    (test-with-notmuch
      (let ((smtpmail-queue-mail t))
        (test-with-notmuch-mail nil
          (notmuch-mua-send-and-exit)))
      (let ((rs-smtpmail-synchronous t))
        (test-refused (smtpmail-send-queued-mail)))
      (should (= 0 (test-queued))))))

(test-client test-clients-notmuch-draft ("notmuch" "Draft")
  "notmuch marks a draft as deleted before it sends; so its buffer must stay."
  (test-with-refusal
    (test-with-notmuch
      (let ((rs-smtpmail-synchronous t))
        (test-with-notmuch-mail nil
          (notmuch-draft-postpone))
        (cl-flet ((drafts () (test-notmuch-count "tag:draft and not tag:deleted")))
          (should (= 1 (drafts)))
          (test-with-composed draft
              (notmuch-draft-resume (concat "id:" (test-notmuch-draft-id)))
            (test-refused (notmuch-mua-send-and-exit))
            (should (string-search "Hello" (buffer-string)))
            (should (buffer-modified-p))
            (process-send-string test-server
                                 (format "script %s\n" (cadr (test-script))))
            (test-empty-spool)
            (notmuch-mua-send-and-exit))
          (should (= 0 (drafts))))
        (test-arrived 1 '("you@example.com") "Hello\r\n")))))

(defun test-notmuch-count (query)
  "Return the number of mails that match QUERY."
  (string-to-number (car (process-lines "notmuch" "count" "--exclude=false" query))))

(defun test-notmuch-draft-id ()
  "Return the Message-ID of the draft."
  (string-remove-prefix
   "id:" (car (process-lines "notmuch" "search" "--output=messages" "tag:draft"))))

(provide 'test-clients-notmuch)

;;; test-clients-notmuch.el ends here
