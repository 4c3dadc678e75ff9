;;; rs-smtpmail-message.el --- What smtpmail would send, to whom and by whom  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Envelope, server and bytes of a message, from its buffer and from
;; smtpmail's options.

;;; Code:

(require 'sendmail)
(require 'smtpmail)
(require 'rs-smtpmail)

(defvar mail-aliases)

(declare-function expand-mail-aliases "mailalias")
(declare-function mail-fetch-field "mail-utils")
(declare-function message-narrow-to-headers "message")

;;;; Recipients

(defconst rs-smtpmail--recipient-field
  "^\\(\\(?:Resent-\\)?\\(?:To\\|Cc\\|Bcc\\)\\)[ \t]*:"
  "Regexp for the start of a field with recipients.")

(defun rs-smtpmail--check-header ()
  "Make sure that smtpmail will see the whole header of this mail.
It takes a line that is no field for the end of the header; recipients
after it would get nothing, and be seen by the others in what they get."
  (save-excursion
    (let ((case-fold-search t)
          (separator (format "^%s\n" (regexp-quote (or mail-header-separator ""))))
          (limit (make-marker)))
      (goto-char (point-min))
      (unless (and (> (length mail-header-separator) 0)
                   (re-search-forward separator nil t)
                   (goto-char (match-beginning 0)))
        (re-search-forward "^$" nil 'move))
      (set-marker limit (point))
      (goto-char (point-min))
      (let ((inhibit-read-only t))
        (while (re-search-forward "^[!-9;-~]+\\([ \t]+\\):" limit t)
          (delete-region (match-beginning 1) (match-end 1))))
      (rfc822-goto-eoh)
      (when (< (point) limit)
        (let ((line (buffer-substring-no-properties (point) (line-end-position))))
          (when (re-search-forward rs-smtpmail--recipient-field limit t)
            (user-error "Sending failed: the field %s comes after the line %S, \
which ends the header"
                        (match-string-no-properties 1) line)))))))

(defun rs-smtpmail--mail-recipients ()
  "Return the recipients of the mail in this buffer, aliases expanded."
  (let ((header (save-excursion
                  (rfc822-goto-eoh)
                  (buffer-substring-no-properties (point-min) (point)))))
    (with-temp-buffer
      (insert (if (multibyte-string-p header)
                  header
                (decode-coding-string header 'utf-8 t)))
      (when mail-aliases
        (expand-mail-aliases (point-min) (point-max)))
      (rs-smtpmail--recipients-between (point-min) (point-max)))))

(defun rs-smtpmail--recipients-between (start end)
  "Return the recipients in the header between START and END, once each.
Resent fields, if there are any, replace the others."
  (save-excursion
    (let ((case-fold-search t)
          fields resent)
      (goto-char start)
      (while (re-search-forward rs-smtpmail--recipient-field end t)
        (let ((name (match-string-no-properties 1))
              (value-start (point)))
          (forward-line 1)
          (while (and (< (point) end) (looking-at-p "[ \t]"))
            (forward-line 1))
          (goto-char (min (point) end))
          (push (cons name (buffer-substring-no-properties value-start (point)))
                (if (string-prefix-p "resent-" name t) resent fields))))
      (delete-dups
       (mapcan (pcase-lambda (`(,name . ,value))
                 (rs-smtp-parse-addresses value name))
               (nreverse (or resent fields)))))))

(defun rs-smtpmail--qualified (recipients)
  "Return RECIPIENTS with `smtpmail-sendto-domain' where they have no domain."
  (delete-dups (mapcar #'smtpmail-maybe-append-domain recipients)))

;;;; Envelope, server and content

(defun rs-smtpmail--envelope-sender (buffer)
  "Return the envelope sender of the mail in BUFFER by smtpmail's rules."
  (or smtpmail-mail-address
      (let ((specified mail-specify-envelope-from))
        (with-current-buffer buffer
          (save-excursion
            (save-restriction
              (message-narrow-to-headers)
              (or (and specified (mail-envelope-from))
                  (let ((from (mail-fetch-field "from")))
                    (and from (cadr (mail-extract-address-components from))))
                  (smtpmail-user-mail-address))))))
      (user-error "Sending failed: no sender; set `user-mail-address'")))

(defun rs-smtpmail--server ()
  "Return the server that smtpmail's options name, as `rs-smtp-send' wants it."
  (list :host smtpmail-smtp-server
        :port (or smtpmail-smtp-service "smtp")
        :stream-type smtpmail-stream-type
        :user smtpmail-smtp-user
        :helo (smtpmail-fqdn)
        :require-auth (and smtpmail-servers-requiring-authorization
                           (string-match-p
                            smtpmail-servers-requiring-authorization
                            smtpmail-smtp-server)
                           t)))

(defun rs-smtpmail--wire-bytes (buffer)
  "Return the mail in BUFFER as the bytes that smtpmail would send.
Line ends are left to the module."
  (with-current-buffer buffer
    (let* ((text (buffer-substring-no-properties (point-min) (point-max)))
           (coding (coding-system-change-eol-conversion
                    (or smtpmail-code-conv-from 'raw-text) 'unix)))
      (cond
       ((not (multibyte-string-p text)) text)
       ((or (memq (coding-system-type coding) '(charset raw-text))
            (and (eq (coding-system-type coding) 'utf-8)
                 (not (coding-system-get coding :bom)))
            (and (coding-system-get coding :ascii-compatible-p)
                 (= (position-bytes (point-max)) (point-max))))
        (encode-coding-string text coding))
       ;; smtpmail encodes line by line, which matters where the coding
       ;; system has a state or a signature.
       (t (mapconcat (lambda (line) (encode-coding-string line coding))
                     (split-string text "\n")
                     "\n"))))))

(provide 'rs-smtpmail-message)

;;; rs-smtpmail-message.el ends here
