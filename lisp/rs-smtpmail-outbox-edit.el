;;; rs-smtpmail-outbox-edit.el --- Edit a message in the outbox  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; A message is edited in a buffer of Message.  Meanwhile the original stays in
;; the spool, held, so that whatever happens to Emacs it is there, and is not
;; sent without the user's seeing it.  It is deleted only when the edited
;; message has been accepted for sending, or is safe in a file of the user's.

;;; Code:

(require 'message)
(require 'mm-decode)
(require 'mml)
(require 'smtpmail)
(require 'rs-smtpmail-accounts)
(require 'rs-smtpmail-copy)
(require 'rs-smtpmail-message)
(require 'rs-smtpmail-outbox-commands)

(defvar-local rs-smtpmail--edited-entry nil
  "The entry in the spool whose message is edited in this buffer.")

;;;; Beginning

(defun rs-smtpmail-outbox-edit ()
  "Edit this message in a buffer of Message.
Recipients whom the header does not name are in Bcc.  The message stays in
the outbox, held, until the edited one is sent or saved; it is still there
if the buffer is killed."
  (interactive nil rs-smtpmail-outbox-mode)
  (rs-smtpmail--outbox-take-out
   (rs-smtpmail--outbox-entry (rs-smtpmail--outbox-id))))

(defun rs-smtpmail--outbox-take-out (entry)
  "Pop to a buffer for editing the message of ENTRY, to be sent in its place."
  (let ((buffer (gethash (plist-get entry :id) rs-smtpmail--edited)))
    (if (buffer-live-p buffer)
        (pop-to-buffer buffer)
      (setq entry (rs-smtpmail--outbox-take-hold entry)
            buffer (generate-new-buffer "*unsent mail*"))
      (let (done)
        (unwind-protect
            (with-current-buffer buffer
              (rs-smtpmail--outbox-compose entry)
              (setq done t))
          (unless done
            (kill-buffer buffer)
            (rs-smtpmail--outbox-put-back entry))))
      (with-current-buffer buffer
        (rs-smtpmail--outbox-tie entry))
      (pop-to-buffer buffer)
      (message-goto-body)
      (rs-smtpmail--outbox-ask-server (plist-get entry :server))
      (when-let ((text (rs-smtpmail--outbox-twice-text)))
        (message "%s" text)))))

(defun rs-smtpmail--outbox-take-hold (entry)
  "See to it that ENTRY is not sent, and return it as it is now.
Its state is still the one before."
  (let ((id (plist-get entry :id))
        (origin (plist-get entry :origin)))
    (pcase (plist-get entry :state)
      ((or 'sending 'needs-credentials)
       (user-error "This message is being sent; hold it first"))
      ('filing (user-error "This message has been sent")))
    (when (and origin (file-exists-p origin))
      (user-error "This message is in smtpmail's queue, too, in %s" origin))
    (rs-smtp-queue-hold id t)
    (let ((held (rs-smtp-queue-list id)))
      (unless (eq (plist-get held :state) 'held)
        (user-error "This message was about to be sent; try again"))
      (plist-put held :state (plist-get entry :state)))))

(defun rs-smtpmail--outbox-compose (entry)
  "Make this buffer one for editing the message of ENTRY."
  (message-mode)
  (let ((text (string-replace "\r\n" "\n"
                              (rs-smtp-queue-message (plist-get entry :id)))))
    (insert (string-to-multibyte text))
    (if (rs-smtpmail--outbox-sealed-p text)
        (rs-smtpmail--outbox-keep-body)
      (let ((mm-verify-option 'never)
            (mm-decrypt-option 'never))
        (mime-to-mml))))
  (goto-char (point-min))
  (search-forward "\n\n" nil 'move)
  (forward-char -1)
  (rs-smtpmail--outbox-insert-fields entry)
  (insert mail-header-separator)
  (save-restriction
    (narrow-to-region (point-min) (point))
    ;; It gets a new one when it is sent.
    (message-remove-header "Date"))
  (message-set-auto-save-file-name)
  (setq buffer-undo-list nil)
  (set-buffer-modified-p nil))

(defun rs-smtpmail--outbox-insert-fields (entry)
  "Insert the fields for what of ENTRY the header before point does not say."
  (let* ((named (ignore-error rs-smtp-address-error
                  (rs-smtpmail--recipients-between (point-min) (point))))
         (blind (seq-difference
                 (mapcar (lambda (recipient) (plist-get recipient :address))
                         (plist-get entry :recipients))
                 (append named (rs-smtpmail--qualified named))))
         (time (plist-get entry :not-before))
         (end (copy-marker (point) t)))
    (when blind
      (insert (rs-smtpmail--outbox-go-to-bcc) "Bcc: " (string-join blind ", ") "\n")
      (goto-char end))
    (when (and time (> time (float-time)))
      (insert (format-time-string "X-Rs-Smtpmail-Send-At: %F %R\n" time)))
    (insert (rs-smtpmail--copy-fields entry))))

(defun rs-smtpmail--outbox-go-to-bcc ()
  "Go to where Bcc belongs in the header before point; return its prefix.
In a message that was sent on, it belongs to the Resent fields."
  (let ((case-fold-search t)
        (end (point)))
    (goto-char (point-min))
    (if (re-search-forward "^Resent-\\(?:To\\|Cc\\|Bcc\\)[ \t]*:" end t)
        (progn (beginning-of-line)
               "Resent-")
      (goto-char end)
      "")))

(defun rs-smtpmail--outbox-sealed-p (text)
  "Whether TEXT, a message's bytes, would be spoilt by taking its body apart.
That is so for one with a signature, or encrypted."
  (let ((mm-verify-option 'never)
        (mm-decrypt-option 'never))
    (with-temp-buffer
      (set-buffer-multibyte nil)
      (insert text)
      (let ((handle (mm-dissect-buffer t)))
        (prog1 (rs-smtpmail--outbox-sealed-part-p handle)
          (mm-destroy-parts handle))))))

(defun rs-smtpmail--outbox-sealed-part-p (handle)
  "Whether there is a signature or something encrypted in HANDLE, a part."
  (if (stringp (car handle))
      (or (member (car handle) '("multipart/signed" "multipart/encrypted"))
          (seq-some #'rs-smtpmail--outbox-sealed-part-p
                    (seq-filter #'consp (cdr handle))))
    (string-match-p "\\`application/\\(?:x-\\)?pkcs7-mime\\'"
                    (mm-handle-media-type handle))))

(defun rs-smtpmail--outbox-keep-body ()
  "Let the body in this buffer be sent as it is."
  (setq-local message-inhibit-body-encoding t
              header-line-format "Signed or encrypted: edit the header only")
  (save-restriction
    (message-narrow-to-head)
    (mail-decode-encoded-word-region (point-min) (point-max))))

(defun rs-smtpmail--outbox-ask-server (server)
  "Let the mail in this buffer go to SERVER if the user wants that.
Ask only if it would go to another one by today's settings."
  (let* ((here (rs-smtpmail--server-here))
         (name (lambda (server)
                 (format "%s:%s" (plist-get server :host) (plist-get server :port))))
         (old (funcall name server))
         (new (funcall name here)))
    (when (or (null (plist-get here :host))
              (and (not (equal old new))
                   (y-or-n-p (format "Send it by %s, as it was, rather than by %s? "
                                     old new))))
      (setq-local smtpmail-smtp-server (plist-get server :host)
                  smtpmail-smtp-service (plist-get server :port)
                  smtpmail-stream-type (plist-get server :stream-type)
                  smtpmail-smtp-user (plist-get server :user)))))

;;;; Ending

(defun rs-smtpmail--outbox-tie (entry)
  "Let what becomes of the mail in this buffer decide about ENTRY in the spool."
  (setq rs-smtpmail--edited-entry entry)
  (puthash (plist-get entry :id) (current-buffer) rs-smtpmail--edited)
  (rs-smtpmail--changed (plist-get entry :id))
  (add-hook 'message-send-hook #'rs-smtpmail--outbox-confirm-twice nil t)
  (add-hook 'after-save-hook #'rs-smtpmail--outbox-saved nil t)
  (add-hook 'kill-buffer-hook #'rs-smtpmail--outbox-killed nil t)
  (message-add-action `(rs-smtpmail--outbox-replaced ,(current-buffer)) 'send))

(defun rs-smtpmail--outbox-untie ()
  "End what `rs-smtpmail--outbox-tie' has begun; return the entry."
  (let ((entry rs-smtpmail--edited-entry))
    (setq rs-smtpmail--edited-entry nil)
    (when entry
      (remhash (plist-get entry :id) rs-smtpmail--edited))
    entry))

(defun rs-smtpmail--outbox-replaced (buffer)
  "Delete the original of the mail in BUFFER; the mail is safe elsewhere."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (when-let ((entry (rs-smtpmail--outbox-untie)))
        (ignore-error rs-smtp-no-such-entry
          (rs-smtp-queue-remove (plist-get entry :id)))))))

(defun rs-smtpmail--outbox-saved ()
  "Delete the original of the mail in this buffer if all of it has been saved."
  (when rs-smtpmail--edited-entry
    (if (save-excursion
          (goto-char (point-min))
          ;; Wherever it is: if in doubt, the original stays.
          (search-forward " buffer=\"" nil t))
        (message "Without its attachments; the message stays in the outbox, too")
      ;; On the disk, not only on its way to it.
      (let ((write-region-inhibit-fsync nil))
        (write-region "" nil buffer-file-name t 'silent))
      (rs-smtpmail--outbox-replaced (current-buffer))
      (message "The message is in %s now, not in the outbox"
               (abbreviate-file-name buffer-file-name)))))

(defun rs-smtpmail--outbox-killed ()
  "Tell what has become of the original of the mail in this buffer."
  (when-let ((entry (rs-smtpmail--outbox-untie)))
    (rs-smtpmail--outbox-put-back entry)
    (message "%s" (substitute-command-keys
                   "The message stays in the outbox, unsent; \\[rs-smtpmail-outbox] shows it"))))

(defun rs-smtpmail--outbox-put-back (entry)
  "Let ENTRY be in the spool as it was before it was edited.
If it would be sent by itself then, it stays held."
  (let ((id (plist-get entry :id)))
    (when (memq (plist-get entry :state) '(failed unconfirmed))
      (ignore-error rs-smtp-error
        (rs-smtp-queue-hold id nil)))
    (rs-smtpmail--changed id)))

(defun rs-smtpmail--outbox-twice-text ()
  "Return a text about those who would get this message twice, or nil."
  (save-excursion
    (save-restriction
      (message-narrow-to-headers)
      (let* ((recipients (rs-smtpmail--qualified
                          (ignore-error rs-smtp-address-error
                            (rs-smtpmail--recipients-between (point-min) (point-max)))))
             (texts
              (mapcar
               (pcase-lambda (`(,state . ,format))
                 (when-let ((addresses
                             (seq-intersection
                              recipients
                              (split-string
                               (rs-smtpmail--addresses rs-smtpmail--edited-entry state)
                               ", " t))))
                   (format format (string-join addresses ", "))))
               '((accepted . "%s got this message already")
                 (unconfirmed . "%s may have got this message already")))))
        (when (remq nil texts)
          (string-join (remq nil texts) "; "))))))

(defun rs-smtpmail--outbox-confirm-twice ()
  "Ask before somebody gets the mail in this buffer for a second time."
  (when rs-smtpmail--edited-entry
    (when-let ((text (rs-smtpmail--outbox-twice-text)))
      (unless (y-or-n-p (format "%s; send all the same? " text))
        (user-error "Not sent; take out who is not to get it twice")))))

(provide 'rs-smtpmail-outbox-edit)

;;; rs-smtpmail-outbox-edit.el ends here
