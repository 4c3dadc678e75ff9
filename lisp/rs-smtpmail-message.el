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
(defvar rs-smtpmail--spool)

(declare-function expand-mail-aliases "mailalias")
(declare-function mail-fetch-field "mail-utils")
(declare-function message-field-value "message")
(declare-function message-narrow-to-headers "message")
(declare-function message-remove-header "message")
(declare-function rs-smtpmail--start "rs-smtpmail-engine")

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

(defun rs-smtpmail--header-separator ()
  "Return `mail-header-separator' for this mail.
Rmail resends a mail as it is, with an empty line after the header.  There
smtpmail would remove a line of the body that looks like the separator."
  (save-excursion
    (rfc822-goto-eoh)
    (let ((case-fold-search t))
      (if (and (eolp)
               (re-search-backward "^Resent-\\(?:To\\|Cc\\|Bcc\\)[ \t]*:" nil t))
          ""
        mail-header-separator))))

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
          (resent-end (rs-smtpmail--resent-fields-end start end))
          fields resent)
      (goto-char start)
      (while (re-search-forward rs-smtpmail--recipient-field end t)
        (let ((name (match-string-no-properties 1))
              (value-start (point)))
          (forward-line 1)
          (while (and (< (point) end) (looking-at-p "[ \t]"))
            (forward-line 1))
          (goto-char (min (point) end))
          (let ((field (cons name (buffer-substring-no-properties value-start (point)))))
            (cond ((not (string-prefix-p "resent-" name t)) (push field fields))
                  ((< value-start resent-end) (push field resent))))))
      (rs-smtpmail--once-each
       (mapcan (pcase-lambda (`(,name . ,value))
                 (rs-smtp-parse-addresses value name))
               (nreverse (or resent fields)))))))

(defun rs-smtpmail--resent-fields-end (start end)
  "Return where the Resent fields of the latest resending end.
Each resending puts its fields, once each, before those of earlier ones
\(RFC 5322 section 3.6.6), which are between START and END, too."
  (save-excursion
    (let ((case-fold-search t)
          seen found)
      (goto-char start)
      (while (and (not found)
                  (re-search-forward
                   "^Resent-\\(?:From\\|Sender\\|Date\\|Message-ID\\)[ \t]*:" end t))
        (let ((name (downcase (match-string-no-properties 0))))
          (if (member name seen)
              (setq found (match-beginning 0))
            (push name seen))))
      (or found end))))

(defun rs-smtpmail--once-each (addresses)
  "Return ADDRESSES in order, without those that differ in the domain's case only."
  (let ((seen (make-hash-table :test #'equal)))
    (seq-filter (lambda (address)
                  (let ((key (replace-regexp-in-string "@[^@\"]*\\'" #'downcase
                                                       address t t)))
                    (unless (gethash key seen)
                      (puthash key t seen))))
                addresses)))

(defun rs-smtpmail--qualified (recipients)
  "Return RECIPIENTS with `smtpmail-sendto-domain' where they have no domain."
  (rs-smtpmail--once-each (mapcar #'smtpmail-maybe-append-domain recipients)))

;;;; Envelope, server and content

(defun rs-smtpmail--field-addresses (name)
  "Return the addresses in the field NAME, nil if there is none.
The accessible part of the buffer is the header."
  (when-let ((value (mail-fetch-field name)))
    (unless (multibyte-string-p value)
      (setq value (decode-coding-string value 'utf-8 t)))
    (rs-smtp-parse-addresses value name)))

(defun rs-smtpmail--header-sender ()
  "Return the address of who sends the mail in this buffer, or nil.
That is From; where From names several, Sender (RFC 5322 section 3.6.2);
and where the mail is resent, Resent-Sender or Resent-From, for From is
somebody else then."
  (save-excursion
    (save-restriction
      (rfc822-goto-eoh)
      (narrow-to-region (point-min) (point))
      (goto-char (point-min))
      (if (let ((case-fold-search t))
            (re-search-forward "^Resent-\\(?:To\\|Cc\\|Bcc\\)[ \t]*:" nil t))
          (save-restriction
            (narrow-to-region (point-min) (rs-smtpmail--resent-fields-end
                                           (point-min) (point-max)))
            (car (or (rs-smtpmail--field-addresses "Resent-Sender")
                     (rs-smtpmail--field-addresses "Resent-From"))))
        (let ((from (rs-smtpmail--field-addresses "From")))
          (car (or (and (cdr from) (rs-smtpmail--field-addresses "Sender"))
                   from)))))))

(defun rs-smtpmail--sender ()
  "Return the envelope sender of the mail in this buffer, by smtpmail's options."
  (or (and mail-specify-envelope-from
           (not (eq mail-envelope-from 'header))
           mail-envelope-from)
      (rs-smtpmail--header-sender)
      (smtpmail-user-mail-address)
      (user-error "Sending failed: no sender; set `user-mail-address'")))

(defun rs-smtpmail--envelope-sender (buffer)
  "Return the envelope sender of the mail in BUFFER, which may be known already."
  (or smtpmail-mail-address
      (with-current-buffer buffer
        (rs-smtpmail--sender))))

(defun rs-smtpmail--complete-smtp-method ()
  "Add the port to this mail's X-Message-SMTP-Method if it names a host only.
It is the one of smtpmail's options.  message.el fails without."
  (pcase (split-string (or (message-field-value "X-Message-SMTP-Method") ""))
    ('("smtp")
     (user-error "Sending failed: X-Message-SMTP-Method names no host"))
    (`("smtp" ,host)
     (save-excursion
       (save-restriction
         (message-narrow-to-headers)
         (message-remove-header "X-Message-SMTP-Method")
         (goto-char (point-max))
         (insert (format "X-Message-SMTP-Method: smtp %s %s\n"
                         host (or smtpmail-smtp-service "smtp"))))))))

(defun rs-smtpmail--server (&optional ehlo-name)
  "Return the server that smtpmail's options name, as `rs-smtp-send' wants it.
EHLO-NAME, if it is non-nil, is used instead of `smtpmail-local-domain'."
  (list :host smtpmail-smtp-server
        :port (or smtpmail-smtp-service "smtp")
        :stream-type smtpmail-stream-type
        :user smtpmail-smtp-user
        :helo (or ehlo-name (smtpmail-fqdn))
        :require-auth (and smtpmail-servers-requiring-authorization
                           (string-match-p
                            smtpmail-servers-requiring-authorization
                            smtpmail-smtp-server)
                           t)))

;; smtpmail copies and searches all of a mail to prepare its header.  That takes
;; long for a large one, so it gets to see the header only, where it would do
;; nothing to the body.  The body goes as it is from the mail buffer into a file,
;; for the module to read: as a string it would be copied twice more, and set off
;; a garbage collection.

(defvar rs-smtpmail--large-body 65536
  "Characters of a mail from which on its body is kept from smtpmail.")

(defun rs-smtpmail--body-to-keep ()
  "Return the body of this mail if smtpmail need not see it, else nil.
The value is a list: the buffer, and where the body starts and ends."
  (save-excursion
    (let ((case-fold-search t)
          start)
      (goto-char (point-min))
      (unless (and (> (length mail-header-separator) 0)
                   (re-search-forward
                    (concat "^" (regexp-quote mail-header-separator) "\n") nil t))
        (rfc822-goto-eoh)
        (and (looking-at-p "\n") (forward-line 1)))
      (setq start (point))
      (cl-flet ((has-field (name)
                  (goto-char (point-min))
                  (re-search-forward (concat "^" name "[ \t]*:") start t)))
        (and (> (- (point-max) start) rs-smtpmail--large-body)
             (bolp)
             ;; The whole mail goes into a file, and perhaps through MML.
             (not smtpmail-queue-mail)
             (not (has-field "Fcc"))
             (not (and (boundp 'mail-encode-mml) mail-encode-mml))
             ;; Its coding system would depend on what is in the body.
             (if enable-multibyte-characters
                 (and (= (position-bytes (point-max)) (point-max))
                      (coding-system-get (rs-smtpmail--coding) :ascii-compatible-p))
               (or (has-field "MIME-Version")
                   (not (eq mail-send-nonascii 'mime))))
             (list (current-buffer) start (point-max)))))))

(defun rs-smtpmail--call-with-wire-bytes (buffer function)
  "Call FUNCTION with the mail in BUFFER as the bytes that smtpmail would send.
They are for `rs-smtp-send'.  Line ends are left to the module."
  (let ((header (with-current-buffer buffer
                  (rs-smtpmail--encoded
                   (buffer-substring-no-properties (point-min) (point-max)))))
        (body (plist-get rs-smtpmail--mail :body)))
    (if (null body)
        (funcall function header)
      (require 'rs-smtpmail-native)
      (rs-smtpmail--start)
      (let ((file (make-temp-file (expand-file-name "tmp/body-" rs-smtpmail--spool))))
        (unwind-protect
            (progn
              (apply #'rs-smtpmail--write-bytes file body)
              (funcall function (list header (list :file file))))
          (delete-file file))))))

(defun rs-smtpmail--write-bytes (file buffer start end)
  "Write the bytes of BUFFER between START and END into FILE, as they are."
  (with-current-buffer buffer
    (save-restriction
      (widen)
      (let ((coding-system-for-write 'no-conversion)
            (buffer-file-format nil)
            (write-region-annotate-functions nil)
            (write-region-post-annotation-function nil)
            ;; The module waits for the disk when it has made a message of it.
            (write-region-inhibit-fsync t))
        (write-region start end file nil 'silent)))))

(defun rs-smtpmail--coding ()
  "Return the coding system of mail, with line ends left alone."
  (coding-system-change-eol-conversion (or smtpmail-code-conv-from 'raw-text) 'unix))

(defun rs-smtpmail--encoded (text)
  "Return TEXT as smtpmail would encode it."
  (let ((coding (rs-smtpmail--coding)))
    (cond
     ;; The module takes ASCII as it is.
     ((or (not (multibyte-string-p text))
          (and (coding-system-get coding :ascii-compatible-p)
               (= (string-bytes text) (length text))))
      text)
     ((or (memq (coding-system-type coding) '(charset raw-text))
          (and (eq (coding-system-type coding) 'utf-8)
               (not (coding-system-get coding :bom))))
      (encode-coding-string text coding))
     ;; smtpmail encodes line by line, which matters where the coding
     ;; system has a state or a signature.
     (t (mapconcat (lambda (line) (encode-coding-string line coding))
                   (split-string text "\n")
                   "\n")))))

(provide 'rs-smtpmail-message)

;;; rs-smtpmail-message.el ends here
