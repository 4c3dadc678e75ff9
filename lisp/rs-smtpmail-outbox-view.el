;;; rs-smtpmail-outbox-view.el --- Look at a message in the outbox  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; A message as text: what is known about its sending, the header decoded, the
;; text parts, and the names of what is attached.

;;; Code:

(require 'mm-decode)
(require 'rs-smtpmail-outbox-commands)

(defun rs-smtpmail-outbox-view ()
  "Look at this message, and at all replies to it."
  (interactive nil rs-smtpmail-outbox-mode)
  (let* ((entry (rs-smtpmail--outbox-entry (rs-smtpmail--outbox-id)))
         (bytes (rs-smtp-queue-message (plist-get entry :id)))
         (buffer (get-buffer-create "*Outbox message*")))
    (with-current-buffer buffer
      (let ((inhibit-read-only t))
        (special-mode)
        (erase-buffer)
        (setq buffer-undo-list t)
        (insert (rs-smtpmail--outbox-description entry) "\n")
        (rs-smtpmail--outbox-insert-message bytes)
        (goto-char (point-min))
        (set-buffer-modified-p nil)))
    (pop-to-buffer buffer)))

(defun rs-smtpmail--outbox-description (entry)
  "Return lines about ENTRY: its state, its recipients and their replies."
  (concat
   (rs-smtpmail--outbox-state-text entry)
   (format ", queued %s for %s, %s\n"
           (format-time-string "%F %R" (plist-get entry :created))
           (plist-get (plist-get entry :server) :host)
           (format (ngettext "%d attempt" "%d attempts" (plist-get entry :attempts))
                   (plist-get entry :attempts)))
   (when-let ((time (plist-get entry :not-before)))
     (format-time-string "To be sent %a %F %R\n" time))
   (mapconcat (lambda (recipient)
                (format "  %s: %s\n" (plist-get recipient :address)
                        (plist-get recipient :state)))
              (plist-get entry :recipients) "")
   (when-let ((replies (rs-smtpmail--outbox-replies entry)))
     (concat (propertize replies 'face 'rs-smtpmail-outbox-attention) "\n"))))

(defun rs-smtpmail--outbox-insert-message (bytes)
  "Insert the message BYTES for reading: decoded, without attachments."
  (let* ((start (point))
         (mm-verify-option 'never)
         (mm-decrypt-option 'never)
         (text (string-replace "\r\n" "\n" bytes))
         (handle (with-temp-buffer
                   (set-buffer-multibyte nil)
                   (insert text)
                   (mm-dissect-buffer t))))
    (insert (decode-coding-string
             (substring text 0 (string-search "\n\n" text)) 'utf-8)
            "\n")
    (save-restriction
      (narrow-to-region start (point))
      (mail-decode-encoded-word-region (point-min) (point-max))
      (goto-char (point-min))
      (while (re-search-forward "^[^ \t\n:]+:" nil t)
        (put-text-property (match-beginning 0) (match-end 0) 'face 'bold))
      (goto-char (point-max)))
    (insert "\n")
    (rs-smtpmail--outbox-insert-part handle)
    (mm-destroy-parts handle)))

(defun rs-smtpmail--outbox-insert-part (handle)
  "Insert the text of HANDLE, a part of a message."
  (cond
   ((equal (car handle) "multipart/alternative")
    (rs-smtpmail--outbox-insert-part (cadr handle)))
   ((stringp (car handle))
    (mapc #'rs-smtpmail--outbox-insert-part (cdr handle)))
   ((and (string-prefix-p "text/" (mm-handle-media-type handle))
         (not (mm-handle-filename handle)))
    (insert (mm-decode-string
             (mm-get-part handle)
             (or (mail-content-type-get (mm-handle-type handle) 'charset)
                 "utf-8")))
    (unless (bolp)
      (insert "\n")))
   (t
    (insert (propertize
             (format "[%s%s]\n" (mm-handle-media-type handle)
                     (if-let ((name (mm-handle-filename handle)))
                         (concat ": " name)
                       ""))
             'face 'shadow)))))

(provide 'rs-smtpmail-outbox-view)

;;; rs-smtpmail-outbox-view.el ends here
