;;; rs-smtpmail-copy.el --- File copies of mail when it has been accepted  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Message files copies (Fcc, and Gnus's Gcc) from the compose buffer when its
;; send function has returned; mail mode has smtpmail file them (Fcc) before
;; anything is sent.  With `rs-smtpmail-defer-fcc' we keep both from it, and
;; store in the spool's entry, as a plist, what is to be filed where; when the
;; server has accepted the message, the mode's own functions file it.  Message's
;; buffer is not changed for that: its functions are advised to pass over the
;; mail just sent.  The plist has the keys:
;;
;;   :mode       `message' or `mail'
;;   :fcc        list of the values of Fcc fields
;;   :gcc        list of Gnus groups
;;   :bcc        text of the Bcc fields, which the stored message lacks
;;   :directory  directory that Fcc may be relative to
;;   :handler    `message-fcc-handler-function', a symbol
;;   :date-at-sending  t if the stored message has another Date than the sent one
;;
;; It is read, never evaluated.

;;; Code:

(require 'rs-smtpmail-engine)
(eval-when-compile (require 'cl-lib))

(defvar message-encoded-mail-cache)
(defvar message-fcc-handler-function)
(defvar message-sent-hook)
(defvar gnus-gcc-externalize-attachments)
(defvar rfc2047-encode-encoded-words)

(declare-function gnus-alive-p "gnus-util")
(declare-function gnus-inews-do-gcc "gnus-msg")
(declare-function gnus-inews-group-method "gnus-msg")
(declare-function gnus-status-message "gnus-int")
(declare-function mail-do-fcc "sendmail")
(declare-function message-do-fcc "message")
(declare-function message-make-date "message")
(declare-function message-tokenize-header "message")
(declare-function message-unquote-tokens "message")

;;;; Internal variables

(defvar rs-smtpmail--filing (make-hash-table :test #'equal)
  "What this Emacs knows of the copies of entries, by id.
The value is t while a copy is about to be filed, `filed' if it has been and
the spool does not know, or else the problem that the user has been told.")

(defvar-local rs-smtpmail--hidden-mail nil
  "The mail last sent from this buffer whose copies are filed later, or nil.
A cons: the value that `message-encoded-mail-cache' has had for that one
mail, and a plist of the copies.")

;;;; Header fields

(defun rs-smtpmail--map-fields (function regexp)
  "Call FUNCTION with start and end of each header field that matches REGEXP.
Return the list of the values."
  (save-excursion
    (save-restriction
      (widen)
      (let ((case-fold-search t)
            (limit (progn (rfc822-goto-eoh) (point-marker)))
            values)
        (goto-char (point-min))
        (while (re-search-forward regexp limit t)
          (let ((start (line-beginning-position)))
            (forward-line 1)
            (while (and (< (point) limit) (looking-at-p "[ \t]"))
              (forward-line 1))
            (push (funcall function start (point)) values)))
        (set-marker limit nil)
        (nreverse values)))))

(defun rs-smtpmail--fields (regexp)
  "Return the texts of the header fields in this buffer that match REGEXP."
  (rs-smtpmail--map-fields #'buffer-substring-no-properties regexp))

(defun rs-smtpmail--take-fields (regexp)
  "Take the header fields that match REGEXP out of this buffer.
Return a list of their places, markers, and texts."
  (rs-smtpmail--map-fields (lambda (start end)
                             (cons (copy-marker start)
                                   (delete-and-extract-region start end)))
                           regexp))

(defun rs-smtpmail--put-back (taken)
  "Put fields back that `rs-smtpmail--take-fields' has TAKEN."
  (save-excursion
    (save-restriction
      (widen)
      (pcase-dolist (`(,place . ,text) (reverse taken))
        (goto-char place)
        (insert text)
        (set-marker place nil)))))

(defun rs-smtpmail--field-values (regexp)
  "Return the values of the header fields in this buffer that match REGEXP."
  (mapcar (lambda (text)
            (replace-regexp-in-string
             "[ \t]*\n[ \t]+" " "
             (string-trim (substring text (1+ (string-search ":" text))))))
          (rs-smtpmail--fields regexp)))

(defun rs-smtpmail--insert-fields (text)
  "Insert TEXT, lines, at the end of this buffer's header."
  (save-excursion
    (save-restriction
      (widen)
      (rfc822-goto-eoh)
      (insert text))))

(defun rs-smtpmail--without-fields (regexp function)
  "Call FUNCTION while this buffer's header lacks the fields that match REGEXP."
  (let ((buffer (current-buffer))
        (taken (with-silent-modifications
                 (rs-smtpmail--take-fields regexp))))
    (unwind-protect
        (funcall function)
      (when (buffer-live-p buffer)
        (with-current-buffer buffer
          (with-silent-modifications
            (rs-smtpmail--put-back taken)))))))

;;;; The mail under way

(defun rs-smtpmail--compose-buffer ()
  "Return the buffer in which the mail in this buffer has been composed.
Message sends from a temporary one, which lacks the fields for copies."
  (let ((id (car (rs-smtpmail--field-values "^Message-ID:"))))
    (or (and id
             (boundp 'message-encoded-mail-cache)
             (seq-find (lambda (buffer)
                         (and (not (eq buffer (current-buffer)))
                              (local-variable-p 'message-encoded-mail-cache buffer)
                              (buffer-local-value 'message-encoded-mail-cache buffer)
                              (provided-mode-derived-p
                               (buffer-local-value 'major-mode buffer)
                               'message-mode)
                              (with-current-buffer buffer
                                (equal id (car (rs-smtpmail--field-values
                                                "^Message-ID:"))))))
                       (buffer-list)))
        (current-buffer))))

(defun rs-smtpmail--gcc-groups ()
  "Return the groups in which Gnus will file the mail in this buffer."
  (let ((gcc (rs-smtpmail--field-values "^Gcc:")))
    (when (and gcc
               (seq-some (lambda (function)
                           (or (memq function (ensure-list message-sent-hook))
                               (and (memq t (ensure-list message-sent-hook))
                                    (memq function
                                          (ensure-list
                                           (default-value 'message-sent-hook))))))
                         '(gnus-inews-do-gcc gnus-agent-possibly-do-gcc)))
      (message-unquote-tokens
       (message-tokenize-header (string-join gcc ", ") " ,\n\t")))))

(defun rs-smtpmail--copies (is-message)
  "Return where the mail in this buffer is to be filed, a plist of :fcc and :gcc.
IS-MESSAGE is non-nil if Message files it, nil if smtpmail does."
  (list :fcc (seq-remove #'string-empty-p (rs-smtpmail--field-values "^Fcc:"))
        :gcc (and is-message (rs-smtpmail--gcc-groups))))

(defun rs-smtpmail--deferrable (copies is-message)
  "Return those of COPIES of this buffer's mail that we can file later.
IS-MESSAGE is as for `rs-smtpmail--copies'."
  (unless (and is-message (rs-smtpmail--fields "^Newsgroups:"))
    (list :fcc (and (not (seq-some #'rs-smtpmail--pipe-p (plist-get copies :fcc)))
                    (or (not is-message)
                        (and (symbolp message-fcc-handler-function)
                             ;; Notmuch puts its own in the place of this one.
                             (not (symbolp (symbol-function 'message-do-fcc)))))
                    (plist-get copies :fcc))
          :gcc (plist-get copies :gcc))))

(defun rs-smtpmail--pipe-p (fcc)
  "Whether FCC is a command that Message gives the mail to."
  (string-match-p "\\`[ \t]*|" fcc))

(defun rs-smtpmail--copy-text (copies is-message date-at-sending)
  "Return text about how COPIES of this buffer's mail are to be filed.
For IS-MESSAGE see `rs-smtpmail--copies'.  DATE-AT-SENDING is non-nil if the
Date is to be set then."
  (rs-smtpmail--print
   (append (list :mode (if is-message 'message 'mail))
           copies
           (list :bcc (string-join (rs-smtpmail--fields "^\\(?:Resent-\\)?Bcc:"))
                 :directory default-directory)
           (and is-message
                (list :handler message-fcc-handler-function))
           (and date-at-sending
                (list :date-at-sending t)))))

(defun rs-smtpmail--print (copy)
  "Return the plist COPY as text for `rs-smtpmail--read-copy'."
  (let ((print-length nil)
        (print-level nil)
        (print-circle nil)
        (print-quoted t))
    (prin1-to-string copy)))

(defun rs-smtpmail--note-filed (id wishes)
  "Remember where the mode files the mail ID under way, by its WISHES."
  (let ((filed (plist-get wishes :filed)))
    (when (and filed
               ;; Message files nothing if we signal that sending failed.
               (or (not (plist-get wishes :is-message))
                   (not (rs-smtpmail--synchronous-p))))
      (puthash id (string-join filed ", ") rs-smtpmail--filed-at-once))))

(defun rs-smtpmail--hide-copies (copies)
  "Keep Message from filing COPIES of the mail just sent from this buffer."
  (setq rs-smtpmail--hidden-mail (cons message-encoded-mail-cache copies))
  (advice-add 'message-do-fcc :around #'rs-smtpmail--around-do-fcc)
  (advice-add 'gnus-inews-do-gcc :around #'rs-smtpmail--around-do-gcc))

(defun rs-smtpmail--hidden-p (key)
  "Whether the copies KEY, `:fcc' or `:gcc', of this mail are filed later.
With the next mail from this buffer that is asked anew."
  (pcase rs-smtpmail--hidden-mail
    (`(,mail . ,copies) (and (eq mail message-encoded-mail-cache)
                             (plist-get copies key)))))

(defun rs-smtpmail--around-do-fcc (original)
  "Call ORIGINAL, `message-do-fcc', unless that is done later."
  (unless (rs-smtpmail--hidden-p :fcc)
    (funcall original)))

(defun rs-smtpmail--around-do-gcc (original &rest groups)
  "Call ORIGINAL, `gnus-inews-do-gcc', with GROUPS, unless that is done later."
  (unless (rs-smtpmail--hidden-p :gcc)
    (apply original groups)))

(defun rs-smtpmail-copy-unload-function ()
  "Take our advice out of Message and Gnus."
  (advice-remove 'message-do-fcc #'rs-smtpmail--around-do-fcc)
  (advice-remove 'gnus-inews-do-gcc #'rs-smtpmail--around-do-gcc)
  nil)

;;;; What an entry says

(defun rs-smtpmail--read-copy (text)
  "Return the plist in TEXT, an entry's :copy, or signal an error."
  (let ((copy (ignore-errors (car (read-from-string text)))))
    (unless (and (proper-list-p copy)
                 (cl-evenp (length copy))
                 (memq (plist-get copy :mode) '(message mail))
                 (rs-smtpmail--strings-p (plist-get copy :fcc))
                 (not (seq-some #'rs-smtpmail--pipe-p (plist-get copy :fcc)))
                 (rs-smtpmail--strings-p (plist-get copy :gcc))
                 (stringp (plist-get copy :bcc))
                 (stringp (plist-get copy :directory))
                 (symbolp (plist-get copy :handler)))
      (error "Nothing can be made of what is stored about it: %s" text))
    copy))

(defun rs-smtpmail--strings-p (value)
  "Whether VALUE is a list of strings."
  (and (proper-list-p value) (seq-every-p #'stringp value)))

(defun rs-smtpmail--copy-fields (entry)
  "Return the Fcc and Gcc fields that ENTRY's message was composed with, a text.
They are those that have been deferred and not been filed yet."
  (if-let ((copy (and (plist-get entry :copy)
                      (ignore-errors
                        (rs-smtpmail--read-copy (plist-get entry :copy))))))
      (let ((default-directory (plist-get copy :directory)))
        (concat (mapconcat (lambda (file)
                             (format "Fcc: %s\n"
                                     (abbreviate-file-name (expand-file-name file))))
                           (plist-get copy :fcc) "")
                (when (plist-get copy :gcc)
                  (format "Gcc: %s\n"
                          (mapconcat #'rs-smtpmail--quoted-group
                                     (plist-get copy :gcc) ", ")))))
    ""))

(defun rs-smtpmail--quoted-group (group)
  "Return the name of GROUP as it is written in Gcc."
  (if (string-match-p "[ ,]" group)
      (format "\"%s\"" group)
    group))

;;;; Filing

(defun rs-smtpmail--file-copy (event)
  "File the copy of the message that EVENT is about, when that disturbs nobody."
  (let* ((entry (plist-get event :entry))
         (id (plist-get entry :id)))
    (pcase (gethash id rs-smtpmail--filing)
      ('t nil)
      ('filed (rs-smtpmail--acknowledge-copy entry))
      (_ (let ((told (gethash id rs-smtpmail--filing))
               (sent (if (eq (plist-get event :event) 'unfiled)
                         (max (or (plist-get entry :not-before) 0)
                              (or (plist-get entry :next-try) 0)
                              (plist-get entry :created))
                       (float-time))))
           (puthash id t rs-smtpmail--filing)
           ;; The mode's functions may ask, and take their time.
           (if noninteractive
               (rs-smtpmail--file-now entry sent told)
             (rs-smtpmail--when-user-is-there
              (lambda (_) (rs-smtpmail--file-now entry sent told)))))))))

(defun rs-smtpmail--file-now (entry sent told)
  "File the copy of the message of ENTRY, which was SENT at that time.
TOLD is the problem that the user knows of, if any."
  (let ((id (plist-get entry :id))
        (problems '("It was interrupted"))
        rest)
    (unwind-protect
        (condition-case err
            (pcase-setq `(,rest . ,problems)
                        ;; It may have been removed before the user was there.
                        (and (rs-smtp-queue-list id)
                             (rs-smtpmail--file-each entry sent)))
          (error (setq problems (list (error-message-string err))))
          (quit (setq problems '("It was quit"))))
      (remhash id rs-smtpmail--filing)
      (if (null problems)
          (rs-smtpmail--acknowledge-copy entry)
        (let ((text (string-join problems "\n")))
          (puthash id text rs-smtpmail--filing)
          (rs-smtpmail--keep-copy entry text rest)
          (unless (equal text told)
            (rs-smtpmail--tell-unfiled entry text)))))))

(defun rs-smtpmail--acknowledge-copy (entry)
  "Tell the spool that the copy of the message of ENTRY has been filed."
  (let ((id (plist-get entry :id)))
    (condition-case nil
        (progn (rs-smtp-queue-filed id)
               (remhash id rs-smtpmail--filing))
      (rs-smtp-no-such-entry (remhash id rs-smtpmail--filing))
      ;; It is being sent to the other recipients; the next event is the time.
      (rs-smtp-error (puthash id 'filed rs-smtpmail--filing)))))

(defun rs-smtpmail--keep-copy (entry problem rest)
  "Tell the spool that for PROBLEM the copy of ENTRY's message is not filed.
REST is the text about what is left of it."
  (condition-case nil
      (rs-smtp-queue-filed (plist-get entry :id) problem rest)
    ;; Removed, or being sent to the other recipients: it says what it said.
    (rs-smtp-error nil)))

(defun rs-smtpmail--file-each (entry sent)
  "File the copies of the message of ENTRY, which was SENT at that time.
Return a cons: text for ENTRY about what could not be filed, and a list of the
problems."
  (let* ((copy (rs-smtpmail--read-copy (plist-get entry :copy)))
         (default-directory (plist-get copy :directory))
         (groups (plist-get copy :gcc))
         problems left)
    (when (and groups (not (rs-smtpmail--gnus-running-p)))
      (add-hook 'gnus-started-hook #'rs-smtpmail--file-waiting)
      (error "Gnus is not running; it is filed in %s when Gnus is started"
             (string-join groups ", ")))
    (let ((parts (rs-smtpmail--sent-parts entry copy sent)))
      (pcase-dolist (`(,key . ,function) '((:gcc . rs-smtpmail--file-in-group)
                                           (:fcc . rs-smtpmail--file-in-file)))
        (setq left nil)
        (dolist (target (plist-get copy key))
          (condition-case err
              (apply function target copy parts)
            (error
             (push target left)
             (push (format "%s: %s" target (error-message-string err)) problems))))
        (setq copy (plist-put copy key (nreverse left)))))
    (cons (rs-smtpmail--print copy) (nreverse problems))))

(defun rs-smtpmail--gnus-running-p ()
  "Whether Gnus can file a message."
  (and (featurep 'gnus) (fboundp 'gnus-alive-p) (gnus-alive-p)))

(defun rs-smtpmail--file-waiting ()
  "File the copies that wait in the spool."
  (remove-hook 'gnus-started-hook #'rs-smtpmail--file-waiting)
  (rs-smtpmail--guarded "filing copies" #'rs-smtp-queue-resume))

(defun rs-smtpmail--sent-parts (entry copy sent)
  "Return the header, with Bcc, and the body of ENTRY's message for its COPY.
If it was dated only when it was SENT, it gets that Date."
  (let* ((text (string-replace "\r\n" "\n" (rs-smtp-queue-message
                                            (plist-get entry :id))))
         (end (or (string-search "\n\n" text) (1- (length text)))))
    (with-temp-buffer
      (insert (decode-coding-string (substring text 0 (1+ end)) 'utf-8))
      (insert (plist-get copy :bcc))
      (when (plist-get copy :date-at-sending)
        (rs-smtpmail--take-fields "^Date:")
        (goto-char (point-max))
        (insert "Date: " (message-make-date sent) "\n"))
      (list (buffer-string)
            (substring text (min (+ end 2) (length text)))))))

(defun rs-smtpmail--file-in-file (file copy header body)
  "File a message of HEADER and BODY in FILE by the plist COPY."
  (if (eq (plist-get copy :mode) 'mail)
      (rs-smtpmail--file-by-mail file header body)
    (rs-smtpmail--call-with-message (format "Fcc: %s\n" file) header body
      (lambda ()
        (let ((handler (plist-get copy :handler)))
          (unless (or (null handler) (fboundp handler))
            (error "There is no function `%s', which files this mail" handler))
          (setq-local message-fcc-handler-function handler))
        (message-do-fcc)))))

(defun rs-smtpmail--file-in-group (group _copy header body)
  "File a message of HEADER and BODY in GROUP of Gnus."
  (let ((store (symbol-function 'gnus-request-accept-article))
        (gnus-gcc-externalize-attachments nil)
        (article nil))
    (rs-smtpmail--call-with-message
        (format "Gcc: %s\n" (rs-smtpmail--quoted-group group)) header body
      (lambda ()
        ;; Its failure Gnus tells only in the echo area.
        (cl-letf (((symbol-function 'gnus-request-accept-article)
                   (lambda (&rest arguments)
                     (setq article (apply store arguments)))))
          (gnus-inews-do-gcc))))
    (unless article
      (error "Gnus could not store it: %s"
             (gnus-status-message (gnus-inews-group-method group))))))

(defun rs-smtpmail--call-with-message (field header body function)
  "Call FUNCTION in a buffer like that of a mail that Message has just sent.
The mail has a FIELD, HEADER and BODY."
  (declare (indent 3))
  (require 'message)
  (require 'rfc2047)
  (with-temp-buffer
    (insert header field mail-header-separator "\n" body)
    ;; What Message files: it need not be encoded again.
    (setq-local message-encoded-mail-cache (buffer-string))
    (let ((coding-system-for-write 'raw-text-unix)
          ;; The header is encoded already, except for Bcc.
          (rfc2047-encode-encoded-words nil))
      (funcall function))))

(defun rs-smtpmail--file-by-mail (file header body)
  "File a mail of HEADER and BODY in FILE as mail mode does."
  (with-temp-buffer
    (insert header "Fcc: " file "\n")
    (let ((date (car (rs-smtpmail--field-values "^Date:")))
          (end (progn (rs-smtpmail--take-fields "^Date:") (point-marker)))
          (coding-system-for-write 'utf-8-unix))
      (insert "\n" (decode-coding-string body 'utf-8))
      ;; It gives the copy a Date of its own: that of filing.
      (cl-letf (((symbol-function 'message-make-date) (lambda (&rest _) date)))
        (mail-do-fcc end)))))

(defun rs-smtpmail--tell-unfiled (entry problem)
  "Tell the user that the copy of ENTRY's message is not filed for PROBLEM."
  (rs-smtpmail--warn
   :warning "Sent, but no copy filed: mail to %s\n%s\n%s"
   (rs-smtpmail--summary entry 'accepted)
   problem
   (format "The message is kept in %s (%s).  \
M-x rs-smtpmail-send-queued-mail files it%s."
           (abbreviate-file-name rs-smtpmail-spool-directory)
           (plist-get entry :id)
           (if (eq (plist-get (rs-smtp-queue-list (plist-get entry :id)) :state)
                   'filing)
               ", M-x rs-smtpmail-remove gives the copy up"
             ""))))

(provide 'rs-smtpmail-copy)

;;; rs-smtpmail-copy.el ends here
