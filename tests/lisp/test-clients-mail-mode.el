;;; test-clients-mail-mode.el --- Sending from Mail mode and Rmail  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'clients)
(require 'mailalias)
(require 'rmail)

;;;; Mail mode

(defmacro test-with-mail (fields &rest body)
  "Run BODY in a new Mail mode buffer with the header FIELDS, a list of lines."
  (declare (indent 1) (debug t))
  `(test-with-composed buffer (let ((mail-user-agent 'sendmail-user-agent))
                                (compose-mail "you@example.com" "Test"))
     (mail-to)
     (goto-char (mail-header-end))
     (dolist (field ,fields)
       (insert field "\n"))
     (mail-text)
     (insert "Grüße\n")
     ,@body))

(test-client test-clients-mail-mode-send ("Mail mode" "Send")
  (test-each-way
    (let (acted)
      (test-with-mail '("Cc: her@example.com")
        (should (derived-mode-p 'mail-mode))
        (push (list (lambda () (setq acted t))) mail-send-actions)
        (mail-send)
        (should acted)
        (should-not (buffer-modified-p))))
    (test-lacks (test-arrived 1 '("you@example.com" "her@example.com")
                              "Subject: Test\r\n" "Gr\303\274\303\237e\r\n")
                "text follows")))

(test-client test-clients-mail-mode-aliases ("Mail mode" "Send")
  (with-temp-file mail-personal-alias-file
    (insert "alias pals a@example.com b@example.com\n"))
  (unwind-protect
      (test-each-way
        (let ((mail-aliases t)
              (mail-alias-modtime nil))
          (test-with-mail '("Cc: pals")
            (mail-send)))
        (test-arrived 1 '("you@example.com" "a@example.com" "b@example.com")))
    (delete-file mail-personal-alias-file)))

(test-client test-clients-mail-mode-failure ("Mail mode" "Failure")
  (let ((fcc (test-file "fcc"))
        acted)
    (test-with-refusal
      (test-with-mail (list (concat "Fcc: " fcc))
        (push (list (lambda () (setq acted t))) mail-send-actions)
        (test-refused (mail-send-and-exit nil))
        (should (buffer-live-p buffer))
        (should (buffer-modified-p))
        (should-not acted)))))

(test-client test-clients-mail-mode-failure-before-acceptance ("Mail mode" "Failure")
  (test-each-way
    (test-with-mail '("Cc: a@x.org b@x.org")
      (should (string-search "Cc" (test-error #'mail-send-and-exit nil)))
      (should (buffer-modified-p)))
    (should-not (test-states))))

(test-client test-clients-mail-mode-bcc ("Mail mode" "Bcc")
  (test-each-way
    (test-with-mail '("Bcc: secret@example.net")
      (mail-send))
    (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net"))
                "secret" "Bcc")))

(test-client test-clients-mail-mode-fcc ("Mail mode" "Copy")
  (test-each-way
    (let ((fcc (test-file "fcc")))
      (test-with-mail (list (concat "Fcc: " fcc))
        (mail-send))
      (test-lacks (test-arrived 1 '("you@example.com")) "Fcc")
      (should (string-search "Gr\303\274\303\237e\n" (test-bytes fcc))))))

(test-client test-clients-mail-mode-account ("Mail mode" "Account")
  (test-each-way
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server "nowhere.invalid")
          (smtpmail-smtp-service 1))
      (test-with-mail nil
        (setq-local smtpmail-smtp-server "localhost"
                    smtpmail-smtp-service port)
        (mail-send)))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-mail-mode-resend ("Mail mode" "Resend")
  (test-each-way
    (test-with-mail '("Resent-To: new@example.com" "Resent-Bcc: secret@example.net"
                      "Resent-From: me@example.org" "From: friend@example.net")
      (mail-send))
    (test-lacks (test-arrived 1 '("new@example.com" "secret@example.net")
                              "Resent-To: new@example.com" "To: you@example.com")
                "secret")))

(test-client test-clients-mail-mode-queue ("Mail mode" "Queue")
  (test-with-server nil
    (test-with-mode
      (test-queue-and-flush
        (test-with-mail '("Bcc: secret@example.net")
          (mail-send)
          (should-not (buffer-modified-p))))
      (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net")
                                "Gr\303\274\303\237e\r\n")
                  "secret"))))

(test-client test-clients-mail-mode-flush ("Mail mode" "Flush")
  (test-with-refusal
    (let ((smtpmail-queue-mail t))
      (test-with-mail nil
        (mail-send)))
    (test-refused (call-interactively #'smtpmail-send-queued-mail))
    (should (= 0 (test-queued)))))

(test-client test-clients-mail-mode-draft ("Mail mode" "Draft")
  "The auto-save file of a mail is deleted when it has been accepted."
  (test-with-refusal
    (test-with-mail nil
      (auto-save-mode 1)
      (let ((auto-save (setq buffer-auto-save-file-name (test-file "auto-save")))
            (delete-auto-save-files t))
        (do-auto-save t)
        (should (file-exists-p auto-save))
        (test-refused (mail-send))
        (should (file-exists-p auto-save))
        (process-send-string test-server
                             (format "script %s\n" (cadr (test-script))))
        (test-empty-spool)
        (mail-send)
        (should-not (file-exists-p auto-save)))
      (test-arrived 1 '("you@example.com")))))

;;;; Rmail

(defmacro test-with-rmail (body-text &rest body)
  "Run BODY in an Rmail buffer with one mail, whose text is BODY-TEXT."
  (declare (indent 1) (debug t))
  `(let ((file (test-file "mbox"))
         (rmail-file-name (test-file "RMAIL"))
         (rmail-primary-inbox-list nil)
         (rmail-display-summary nil)
         (rmail-confirm-expunge nil)
         (mail-self-blind nil))
     (let ((coding-system-for-write 'no-conversion))
       (write-region (concat "From friend@example.net Sat Nov  1 12:00:00 2025\n"
                             "From: Friend <friend@example.net>\n"
                             "To: me@example.org\nCc: other@example.com\n"
                             "Subject: Old\nMessage-ID: <old@example.net>\n"
                             "Date: Sat, 01 Nov 2025 12:00:00 +0000\n"
                             "MIME-Version: 1.0\n"
                             "Content-Type: text/plain; charset=utf-8\n"
                             "Content-Transfer-Encoding: 8bit\n\n"
                             ,body-text "\n")
                     nil file nil 'silent))
     ;; The user says yes to raw-text, which smtpmail asks for 8-bit mail.
     (cl-letf (((symbol-function 'read-coding-system)
                (lambda (_prompt &optional default) default)))
       (test-with-composed rmail (rmail file)
         ,@body))))

(defconst test-received-text "Gr\303\274\303\237e, dear\n"
  "The text, as bytes, of the mail that has come.")

(defun test-rmail-attribute-p (message attribute)
  "Whether Rmail's MESSAGE, a number, has ATTRIBUTE."
  (string-search attribute (concat (rmail-get-attr-names message) "")))

(test-client test-clients-rmail-reply ("Rmail" "Send")
  (test-each-way
    (test-with-rmail test-received-text
      (let ((message-kill-buffer-on-exit t))
        (test-with-composed reply (rmail-reply nil)
          (goto-char (point-max))
          (insert "Yes\n")
          (message-send-and-exit)))
      (with-current-buffer rmail
        (should (test-rmail-attribute-p 1 "answered"))))
    (test-arrived 1 '("friend@example.net" "other@example.com")
                  "In-Reply-To: <old@example.net>" "Yes\r\n")))

(test-client test-clients-rmail-forward ("Rmail" "Send")
  (test-each-way
    (test-with-rmail test-received-text
      (let ((message-kill-buffer-on-exit t))
        (test-with-composed forward (rmail-forward nil)
          (message-goto-to)
          (insert "new@example.com")
          (message-send-and-exit))))
    (test-arrived 1 '("new@example.com") "Old")))

(test-client test-clients-rmail-reply-fails ("Rmail" "Failure")
  (test-with-refusal
    (test-with-rmail test-received-text
      (let ((message-kill-buffer-on-exit t))
        (test-with-composed reply (rmail-reply nil)
          (goto-char (point-max))
          (insert "Yes\n")
          (test-refused (message-send-and-exit))
          (should (buffer-live-p reply))))
      (with-current-buffer rmail
        (should-not (test-rmail-attribute-p 1 "answered"))))))

(test-client test-clients-rmail-resend ("Rmail" "Resend")
  (test-each-way
    (test-with-rmail test-received-text
      (rmail-resend '("a@example.com" "b@example.com"))
      (should (test-rmail-attribute-p 1 "resent")))
    (test-arrived 1 '("a@example.com" "b@example.com")
                  "Resent-From: me@example.org" "\r\nTo: me@example.org"
                  "\r\n\r\nGr\303\274\303\237e, dear\r\n")))

(test-client test-clients-rmail-resend-by-another ("Rmail" "Resend")
  "The envelope's sender is who resends it."
  (test-with-server nil
    (test-with-mode
      (test-with-rmail test-received-text
        (rmail-resend "a@example.com" "moderator@example.org"))
      (should (equal "moderator@example.org" (plist-get (test-received 1) :sender)))
      (test-wait-for-state))))

(test-client test-clients-rmail-resend-of-a-separator ("Rmail" "Resend")
  "A body that quotes a mail being composed stays as it is."
  (let ((text (concat "Quote:\n\nTo: nobody@example.com\n" mail-header-separator
                      "\nEnd\n")))
    (test-each-way
      (test-with-rmail text
        (rmail-resend "a@example.com"))
      (test-arrived 1 '("a@example.com")
                    (concat "\r\n\r\n" (string-replace "\n" "\r\n" text))))))

(test-client test-clients-rmail-resend-fails ("Rmail" "Resend")
  (test-with-refusal
    (test-with-rmail test-received-text
      (test-refused (rmail-resend "a@example.com"))
      (should-not (test-rmail-attribute-p 1 "resent")))))

(test-client test-clients-rmail-resend-queued ("Rmail" "Queue")
  (test-with-server nil
    (test-with-mode
      (test-queue-and-flush
        (test-with-rmail test-received-text
          (rmail-resend "a@example.com")
          (should (test-rmail-attribute-p 1 "resent"))))
      (test-arrived 1 '("a@example.com") "Gr\303\274\303\237e, dear\r\n"))))

(test-client test-clients-rmail-resend-flushed ("Rmail" "Flush")
  (test-with-refusal
    (test-with-rmail test-received-text
      (let ((smtpmail-queue-mail t))
        (rmail-resend "a@example.com")))
    (should (= 1 (test-queued)))
    (test-refused (smtpmail-send-queued-mail))
    (should (= 0 (test-queued)))))

(test-client test-clients-rmail-resend-blind ("Rmail" "Bcc")
  (test-each-way
    (test-with-rmail test-received-text
      (let ((mail-self-blind t))
        (cl-letf (((symbol-function 'user-login-name)
                   (lambda (&optional _) "secret@example.net")))
          (rmail-resend "a@example.com"))))
    (test-lacks (test-arrived 1 '("secret@example.net" "a@example.com")) "secret")))

(test-client test-clients-rmail-reply-copied ("Rmail" "Copy")
  (let ((fcc (test-file "fcc")))
    (write-region "" nil fcc nil 'silent)
    (test-with-server nil
      (test-with-mode
        (test-with-rmail test-received-text
          (let ((message-kill-buffer-on-exit t))
            (test-with-composed reply (rmail-reply t)
              (message-goto-eoh)
              (insert "Fcc: " fcc "\n")
              (message-send-and-exit)))))
      (test-lacks (test-arrived 1 '("friend@example.net")) "Fcc"))
    (should (string-search "In-Reply-To: <old@example.net>" (test-bytes fcc)))))

(provide 'test-clients-mail-mode)

;;; test-clients-mail-mode.el ends here
