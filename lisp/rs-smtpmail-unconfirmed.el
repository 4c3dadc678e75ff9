;;; rs-smtpmail-unconfirmed.el --- Ask about mail the server may have  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; When the line breaks between a message's last byte and the server's answer,
;; only the user can decide what is to become of it.  The question waits until
;; the user pauses, and is never asked twice in a session for the same trouble.

;;; Code:

(require 'rs-smtpmail)
(require 'rs-smtpmail-ask)
(require 'rs-smtpmail-engine)

(defvar rs-smtpmail--to-be-asked nil
  "Ids of the unconfirmed messages to ask about, oldest first.")

(defvar rs-smtpmail--ask-timer nil
  "Idle timer of the next question.")

(defvar rs-smtpmail--ask-idle-seconds 2
  "How long the user must pause before being asked.")

(defconst rs-smtpmail--unconfirmed-answers
  '(("later" . ignore)
    ("send again" . rs-smtp-queue-retry)
    ("keep it, on hold" . rs-smtpmail--hold)
    ("delete, it was delivered" . rs-smtp-queue-remove))
  "What can become of an unconfirmed message, and the function that does it.")

(defun rs-smtpmail--ask-about (ids)
  "Ask about the messages IDS when the user is there, if that is wanted."
  (when (and ids (eq rs-smtpmail-unconfirmed 'ask) (not noninteractive))
    (setq rs-smtpmail--to-be-asked
          (delete-dups (append rs-smtpmail--to-be-asked ids)))
    (rs-smtpmail--ask-when-idle)))

(defun rs-smtpmail--ask-when-idle ()
  "See to it that the next question is asked when the user pauses."
  (unless (memq rs-smtpmail--ask-timer timer-idle-list)
    (setq rs-smtpmail--ask-timer
          (run-with-idle-timer rs-smtpmail--ask-idle-seconds nil
                               #'rs-smtpmail--ask-now))))

(defun rs-smtpmail--ask-now ()
  "Ask about the unconfirmed messages, one after the other, if the user is free.
Else do it when the user pauses the next time."
  (setq rs-smtpmail--ask-timer nil)
  (while (and rs-smtpmail--to-be-asked
              (rs-smtpmail--user-is-there-p num-nonmacro-input-events))
    ;; It may have been sent or deleted meanwhile, and not only by us.
    (let ((entry (rs-smtp-queue-list (pop rs-smtpmail--to-be-asked))))
      (when (eq (plist-get entry :state) 'unconfirmed)
        (rs-smtpmail--guarded "asking about a message"
          #'rs-smtpmail--ask entry))))
  (when rs-smtpmail--to-be-asked
    (if (rs-smtpmail--somebody-looks-p)
        (rs-smtpmail--ask-when-idle)
      (rs-smtpmail--at-next-frame #'rs-smtpmail--ask-when-idle))))

(defun rs-smtpmail--ask (entry)
  "Ask what is to become of ENTRY, an unconfirmed message, and do that."
  (let* ((id (plist-get entry :id))
         (answer (save-window-excursion
                   (rs-smtpmail--show-unconfirmed entry)
                   (condition-case nil
                       (rs-smtpmail--stoppably
                         (completing-read
                          (format-prompt "The server may have this message" "later")
                          rs-smtpmail--unconfirmed-answers nil t nil nil "later"))
                     (quit "later")))))
    (funcall (cdr (assoc answer rs-smtpmail--unconfirmed-answers)) id)
    (rs-smtpmail--changed id)
    (message "%s"
             (substitute-command-keys
              (pcase answer
                ("send again" "The message is being sent again")
                ("later" "The message stays in the outbox; \\[rs-smtpmail-outbox] shows it")
                ("delete, it was delivered" "The message is out of the outbox")
                (_ "The message stays in the outbox, on hold"))))))

(defun rs-smtpmail--hold (id)
  "Hold message ID back."
  (rs-smtp-queue-hold id t))

(defun rs-smtpmail--show-unconfirmed (entry)
  "Show what is to be known of ENTRY, an unconfirmed message."
  (with-current-buffer (get-buffer-create "*Unconfirmed mail*")
    (special-mode)
    (let ((inhibit-read-only t))
      (erase-buffer)
      (insert "It is not known whether this message has been delivered:\n\n"
              (propertize "To:      " 'face 'bold)
              (rs-smtpmail--addresses entry 'unconfirmed) "\n"
              (propertize "Subject: " 'face 'bold)
              (rs-smtpmail--decoded-subject entry) "\n"
              (propertize "Queued:  " 'face 'bold)
              (format-time-string "%a %F %R" (plist-get entry :created)) "\n\n"
              (or (plist-get entry :error)
                  "Emacs ended before the server had answered.")
              "\n\nLook whether it has arrived before it is sent again.\n")
      (goto-char (point-min)))
    (fit-window-to-buffer
     (display-buffer (current-buffer)
                     '((display-buffer-reuse-window display-buffer-at-bottom))))))

(defun rs-smtpmail--look-for-unconfirmed ()
  "Ask about the messages that an earlier Emacs left unconfirmed."
  (rs-smtpmail--ask-about
   (mapcar (lambda (entry) (plist-get entry :id))
           (seq-filter (lambda (entry) (eq (plist-get entry :state) 'unconfirmed))
                       (rs-smtp-queue-list)))))

(provide 'rs-smtpmail-unconfirmed)

;;; rs-smtpmail-unconfirmed.el ends here
