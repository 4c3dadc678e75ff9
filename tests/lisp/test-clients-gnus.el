;;; test-clients-gnus.el --- Sending from Gnus  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'clients)
(require 'gnus)
(require 'gnus-agent)
(require 'gnus-delay)
(require 'gnus-draft)
(require 'nndraft)
(require 'nnfolder)

(defvar test-gnus-archive nil "The directory of Gnus's copies of sent mail.")

(defmacro test-with-gnus (&rest body)
  "Run BODY in a group buffer of Gnus, with files of its own, and the mode on."
  (declare (indent 0) (debug t))
  `(test-call-with-gnus (lambda () ,@body)))

(defun test-call-with-gnus (function)
  "Call FUNCTION for `test-with-gnus'."
  (let* ((home (test-new-directory "gnus"))
         (test-gnus-archive (expand-file-name "archive/" home))
         (gnus-startup-file (expand-file-name "newsrc" home))
         (gnus-init-file nil)
         (gnus-site-init-file nil)
         (gnus-save-newsrc-file nil)
         (gnus-read-newsrc-file nil)
         (gnus-use-dribble-file nil)
         (gnus-select-method '(nnnil ""))
         (gnus-secondary-select-methods nil)
         (gnus-agent t)
         (gnus-agent-directory (expand-file-name "agent/" home))
         (gnus-agent-queue-mail t)
         (gnus-agent-prompt-send-queue nil)
         (gnus-agent-go-online nil)
         (gnus-plugged t)
         (gnus-interactive-exit nil)
         (gnus-expert-user t)
         (gnus-novice-user nil)
         (gnus-inhibit-startup-message t)
         ;; It recurses for ever in batch mode.
         (gnus-message-highlight-citation nil)
         (gnus-message-archive-method
          `(nnfolder "archive" (nnfolder-directory ,test-gnus-archive)
                     (nnfolder-active-file ,(concat test-gnus-archive "active"))
                     (nnfolder-get-new-mail nil)
                     (nnfolder-inhibit-expiry t)))
         (gnus-message-archive-group nil)
         (gnus-gcc-mark-as-read t)
         (gnus-posting-styles nil)
         (message-directory (expand-file-name "Mail/" home))
         (message-auto-save-directory message-directory)
         (message-send-mail-real-function nil)
         (message-kill-buffer-on-exit t)
         (mail-user-agent 'gnus-user-agent))
    (save-window-excursion
      (gnus)
      (unwind-protect
          (test-with-mode (funcall function))
        (when (gnus-alive-p)
          (with-current-buffer gnus-group-buffer
            (gnus-group-quit)))
        ;; Gnus remembers this directory for as long as Emacs lives.
        (delete-directory nndraft-directory t)))))

(defmacro test-with-gnus-mail (fields &rest body)
  "Run BODY in a mail composed in Gnus with the header FIELDS, a list of lines."
  (declare (indent 1) (debug t))
  `(test-with-composed buffer (progn (set-buffer gnus-group-buffer)
                                     (gnus-group-mail))
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

(defun test-gnus-drafts (group)
  "Return the numbers of the mails in Gnus's draft GROUP."
  (let ((directory (expand-file-name group nndraft-directory)))
    (and (file-directory-p directory)
         (directory-files directory nil "\\`[0-9]+\\'"))))

(defun test-gnus-copies ()
  "Return the text of the folder of sent mails."
  (let ((file (expand-file-name "sent" test-gnus-archive)))
    (if (file-exists-p file) (test-bytes file) "")))

(test-client test-clients-gnus-send ("Gnus" "Send")
  (test-with-server nil
    (test-with-gnus
      (test-with-gnus-mail '("Cc: her@example.com")
        (message-send-and-exit)
        (should-not (buffer-live-p buffer)))
      (test-arrived 1 '("you@example.com" "her@example.com") "Hello\r\n"))))

(test-client test-clients-gnus-bcc ("Gnus" "Bcc")
  (test-with-server nil
    (test-with-gnus
      (test-with-gnus-mail '("Bcc: secret@example.net")
        (message-send-and-exit))
      (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net"))
                  "secret" "Bcc"))))

(test-client test-clients-gnus-gcc ("Gnus" "Copy")
  (test-with-server nil
    (test-with-gnus
      (test-with-gnus-mail '("Gcc: nnfolder+archive:sent")
        (message-send-and-exit))
      (test-lacks (test-arrived 1 '("you@example.com")) "Gcc")
      (should (string-search "Hello\n" (test-gnus-copies))))))

(test-client test-clients-gnus-failure ("Gnus" "Failure")
  "Neither a copy is made nor is the draft deleted."
  (test-with-refusal
    (test-with-gnus
      (let ((rs-smtpmail-synchronous t))
        (test-with-gnus-mail '("Gcc: nnfolder+archive:sent")
          (test-refused (message-send-and-exit))
          (should (buffer-live-p buffer))
          (should (equal "" (test-gnus-copies))))))))

(test-client test-clients-gnus-draft ("Gnus" "Draft")
  "A saved draft is deleted when the mail has been accepted, not before."
  (test-with-refusal
    (test-with-gnus
      (let ((rs-smtpmail-synchronous t))
        (test-with-gnus-mail nil
          (save-buffer)
          (should (= 1 (length (test-gnus-drafts "drafts"))))
          (test-refused (message-send-and-exit))
          (should (= 1 (length (test-gnus-drafts "drafts"))))
          (process-send-string test-server
                               (format "script %s\n" (cadr (test-script))))
          (test-empty-spool)
          (message-send-and-exit)
          (should-not (test-gnus-drafts "drafts")))
        (test-arrived 1 '("you@example.com"))))))

(test-client test-clients-gnus-draft-group ("Gnus" "Draft")
  "Drafts that are sent from their group."
  (test-with-server nil
    (test-with-gnus
      (test-with-gnus-mail nil
        (save-buffer))
      (gnus-activate-group "nndraft:drafts")
      (should (= 1 (length (test-gnus-drafts "drafts"))))
      (gnus-draft-send (string-to-number (car (test-gnus-drafts "drafts")))
                       "nndraft:drafts" t)
      (should-not (test-gnus-drafts "drafts"))
      (test-arrived 1 '("you@example.com") "Hello\r\n"))))

(test-client test-clients-gnus-posting-styles ("Gnus" "Account")
  (test-with-server nil
    (test-with-gnus
      (let ((gnus-posting-styles
             `((".*"
                ("X-Message-SMTP-Method"
                 ,(format "smtp localhost %d" smtpmail-smtp-service)))))
            (smtpmail-smtp-server "nowhere.invalid")
            (smtpmail-smtp-service 1))
        (test-with-gnus-mail nil
          (should (message-field-value "X-Message-SMTP-Method"))
          (message-send-and-exit)))
      (test-lacks (test-arrived 1 '("you@example.com")) "SMTP-Method"))))

(test-client test-clients-gnus-unplugged ("Gnus" "Queue")
  (test-with-server nil
    (test-with-gnus
      (gnus-agent-toggle-plugged nil)
      (test-with-gnus-mail '("Bcc: secret@example.net")
        (message-send-and-exit)
        (should-not (buffer-live-p buffer)))
      (should (= 1 (length (test-gnus-drafts "queue"))))
      (should (= 0 (test-received-count)))
      (should-not (test-states)))))

(test-client test-clients-gnus-send-queue ("Gnus" "Flush")
  (test-with-server nil
    (test-with-gnus
      (gnus-agent-toggle-plugged nil)
      (dotimes (number 2)
        (test-with-gnus-mail (list (format "Bcc: secret%d@example.net" number)
                                   "Gcc: nnfolder+archive:sent")
          (message-send-and-exit)))
      (should (= 2 (length (test-gnus-drafts "queue"))))
      (gnus-agent-toggle-plugged t)
      (with-current-buffer gnus-group-buffer
        (gnus-group-send-queue))
      (should-not (test-gnus-drafts "queue"))
      (test-wait-for-state)
      (should (= 2 (test-received-count)))
      (dolist (number '(1 2))
        (let ((received (test-received number)))
          (should (= 2 (length (plist-get received :recipients))))
          (test-lacks received "secret" "Gcc" "X-Gnus")))
      (should (string-search "Hello\n" (test-gnus-copies))))))

(test-client test-clients-gnus-send-queue-with-account ("Gnus" "Account")
  (test-with-server nil
    (test-with-gnus
      (let ((method (format "X-Message-SMTP-Method: smtp localhost %d"
                            smtpmail-smtp-service))
            (smtpmail-smtp-server "nowhere.invalid")
            (smtpmail-smtp-service 1))
        (gnus-agent-toggle-plugged nil)
        (test-with-gnus-mail (list method)
          (message-send-and-exit))
        (gnus-agent-toggle-plugged t)
        (with-current-buffer gnus-group-buffer
          (gnus-group-send-queue)))
      (test-lacks (test-arrived 1 '("you@example.com")) "SMTP-Method"))))

(test-client test-clients-gnus-send-queue-refused ("Gnus" "Flush")
  "What could not be sent stays in Gnus's queue."
  (test-with-refusal
    (test-with-gnus
      (let ((rs-smtpmail-synchronous t))
        (gnus-agent-toggle-plugged nil)
        (test-with-gnus-mail nil
          (message-send-and-exit))
        (gnus-agent-toggle-plugged t)
        (test-refused (with-current-buffer gnus-group-buffer
                        (gnus-group-send-queue)))
        (should (= 1 (length (test-gnus-drafts "queue"))))))))

(test-client test-clients-gnus-delay ("Gnus" "Queue")
  (test-with-server nil
    (test-with-gnus
      (gnus-delay-initialize t t)
      (test-with-gnus-mail nil
        (gnus-delay-article "1h"))
      (should (= 1 (length (test-gnus-drafts "delayed"))))
      (gnus-delay-send-queue)
      (should (= 1 (length (test-gnus-drafts "delayed"))))
      (should (= 0 (test-received-count)))
      ;; An hour later.
      (let ((file (expand-file-name
                   (concat "delayed/" (car (test-gnus-drafts "delayed")))
                   nndraft-directory)))
        (with-temp-file file
          (insert-file-contents-literally file)
          (re-search-forward "^X-Gnus-Delayed: .*")
          (replace-match "X-Gnus-Delayed: Sat, 01 Nov 2025 12:00:00 +0000")))
      (gnus-delay-send-queue)
      (should-not (test-gnus-drafts "delayed"))
      (test-lacks (test-arrived 1 '("you@example.com") "Hello\r\n") "Delayed"))))

(test-client test-clients-gnus-resend ("Gnus" "Resend")
  (let ((mbox (test-file "mbox")))
    (write-region (concat "From friend@example.net Sat Nov  1 12:00:00 2025\n"
                          "From: friend@example.net\nTo: me@example.org\n"
                          "Subject: Old\nMessage-ID: <old@example.net>\n"
                          "Date: Sat, 01 Nov 2025 12:00:00 +0000\n\nHello\n")
                  nil mbox nil 'silent)
    (test-with-server nil
      (test-with-gnus
        (gnus-group-read-ephemeral-group
         "mbox" `(nndoc "mbox" (nndoc-address ,mbox) (nndoc-article-type mbox)))
        (gnus-summary-resend-message "new@example.com" 1)
        (gnus-summary-exit))
      (test-arrived 1 '("new@example.com") "Resent-To: new@example.com"
                    "\r\nTo: me@example.org" "Subject: Old" "Hello\r\n"))))

(provide 'test-clients-gnus)

;;; test-clients-gnus.el ends here
