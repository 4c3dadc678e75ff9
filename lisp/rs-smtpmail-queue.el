;;; rs-smtpmail-queue.el --- Send what waits in smtpmail's queue or our spool  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; With `smtpmail-queue-mail', smtpmail writes three things for each message
;; into `smtpmail-queue-dir': a file FILE with the message, as bytes; a file
;; FILE.el with the recipients and perhaps the server, as a `setq' form; and a
;; line with FILE's name in the index, a file.
;;
;; We adopt such messages: put them into our spool, then delete FILE.el, then the
;; line, then FILE.  While FILE is there, it stands for the message, and the
;; spool's entry, which names it as its origin, is not sent: so a message that we
;; were interrupted with is adopted again, not twice.  Exporting a message to
;; the queue goes the other way round, likewise.
;;
;; The queue may be the directory cur or new of a maildir, whose programs move
;; FILE between the two and append flags to its name, as in FILE:2,S.  They do so
;; with FILE.el, too, which to them is one more message.
;;
;; The form is read and picked apart, never evaluated.  FILE and FILE.el without
;; a line are what smtpmail left when interrupted while writing.  Of anything
;; else that does not add up, smtpmail, or a program that we know nothing of, may
;; have made it: the user is told, and nothing is touched.

;;; Code:

(require 'smtpmail)
(require 'rs-smtpmail)
(require 'rs-smtpmail-accounts)
(eval-when-compile (require 'cl-lib))

(autoload 'rs-smtpmail--confirm-sending "rs-smtpmail-outbox-commands")
(autoload 'rs-smtpmail--may-be-delivered-p "rs-smtpmail-outbox-row")
(autoload 'rs-smtpmail--outbox-state "rs-smtpmail-outbox-row")

(declare-function rs-smtpmail--addresses "rs-smtpmail-engine")
(declare-function rs-smtpmail--explanation "rs-smtpmail-engine")
(declare-function rs-smtpmail--summary "rs-smtpmail-engine")
(declare-function rs-smtpmail--wait "rs-smtpmail-engine")
(declare-function rs-smtpmail--warn "rs-smtpmail-engine")

;;;; Internal variables

(defvar rs-smtpmail--adopting nil
  "Non-nil while the queue is being adopted.")

(defconst rs-smtpmail--stored-variables
  '((smtpmail-recipient-address-list . rs-smtpmail--string-list-p)
    (smtpmail-smtp-server . stringp)
    (smtpmail-stream-type . symbolp)
    (smtpmail-smtp-service . rs-smtpmail--service-p)
    (smtpmail-smtp-user . rs-smtpmail--string-or-nil-p)
    (rs-smtpmail--queued-options . rs-smtpmail--queued-options-p))
  "Variables that are stored with a message, and tests for their values.")

(defvar rs-smtpmail--queued-options nil
  "What an exported message's entry says that smtpmail knows nothing of.
Options of `rs-smtp-send': `:not-before' and `:copy'.")

(defconst rs-smtpmail--queue-file-name
  "\\`[0-9]+-[0-9]+-[0-9]+_[0-9]+.[0-9]+.[0-9]+_[0-9]+\\'"
  "Regexp for the names that smtpmail gives to queued messages.")

;;;; The files of the queue

(defun rs-smtpmail--index-file ()
  "Return the name of the index of smtpmail's queue."
  (expand-file-name smtpmail-queue-index-file smtpmail-queue-dir))

(defun rs-smtpmail--index-lines ()
  "Return the lines of the index, as they are but for their ends."
  (let ((index (rs-smtpmail--index-file)))
    (when (file-exists-p index)
      (with-temp-buffer
        (set-buffer-multibyte nil)
        (insert-file-contents-literally index)
        (split-string (buffer-string) "\r?\n" t)))))

(defun rs-smtpmail--drop-index-lines (lines)
  "Take LINES out of the index, in one step, and leave the others as they are."
  (when lines
    (let* ((index (rs-smtpmail--index-file))
           (new (concat index "~")))
      (with-temp-buffer
        (set-buffer-multibyte nil)
        (insert-file-contents-literally index)
        (while (not (eobp))
          (if (member (string-remove-suffix
                       "\r" (buffer-substring (point) (line-end-position)))
                      lines)
              (delete-region (point) (line-beginning-position 2))
            (forward-line 1)))
        ;; We have the lock: nobody else writes to this one.
        (with-file-modes (file-modes index)
          (let ((coding-system-for-write 'no-conversion))
            (write-region nil nil new nil 'silent))))
      (rename-file new index t))))

(defun rs-smtpmail--without-flags (file)
  "Return the name of FILE without what a Maildir program has appended to it."
  (replace-regexp-in-string "[:;!]2,[[:alnum:]]*\\'" "" file))

(defun rs-smtpmail--queue-key (file)
  "Return a name for FILE in the queue that Maildir programs do not change.
It is one without flags and, in a maildir, in the directory cur."
  (replace-regexp-in-string "/new/\\([^/]*\\)\\'" "/cur/\\1"
                            (rs-smtpmail--without-flags file)))

(defun rs-smtpmail--queue-siblings (directory)
  "Return DIRECTORY and, if it is cur or new of a maildir, the other of them.
What can't be listed is left out."
  (let ((directory (file-name-as-directory directory)))
    (seq-filter #'file-accessible-directory-p
                (if (string-match "/\\(?:cur\\|new\\)/\\'" directory)
                    (list (replace-match "/cur/" t t directory)
                          (replace-match "/new/" t t directory))
                  (list directory)))))

(defun rs-smtpmail--queue-table (directories)
  "Return a hash table of the files in DIRECTORIES, lists of them by their keys."
  (let ((table (make-hash-table :test #'equal)))
    (dolist (directory (delete-dups
                        (mapcan #'rs-smtpmail--queue-siblings
                                (delete-dups directories))))
      (dolist (file (directory-files directory t "\\`[^.#].*[^~]\\'\\|\\`[^.#~]\\'"))
        (push file (gethash (rs-smtpmail--queue-key file) table))))
    table))

(cl-defstruct rs-smtpmail--queued
  "What seems to be a message in smtpmail's queue."
  (name nil :documentation "Its name, as the user may know it.")
  (lines nil :documentation "Its lines in the index.")
  (messages nil :documentation "The files with the message: there should be one.")
  (elisps nil :documentation "The files with the recipients, likewise.")
  (id nil :documentation "Its id if it is in the spool already."))

(defun rs-smtpmail--list-queue ()
  "Return what is in smtpmail's queue, in its order.
A list of structures `rs-smtpmail--queued'."
  (let* ((directory (expand-file-name smtpmail-queue-dir))
         (lines (mapcar (lambda (line)
                          (cons (expand-file-name
                                 (decode-coding-string line 'undecided) directory)
                                line))
                        (rs-smtpmail--index-lines)))
         (table (rs-smtpmail--queue-table
                 (cons directory (mapcar (lambda (line)
                                           (file-name-directory (car line)))
                                         lines))))
         (adopted (rs-smtpmail--origins))
         (lines-by-key (make-hash-table :test #'equal))
         indexed)
    (dolist (line lines)
      (let ((key (rs-smtpmail--queue-key (car line)))
            ;; The directory may have been moved with all that is in it.
            (moved (rs-smtpmail--queue-key
                    (expand-file-name (file-name-nondirectory (car line)) directory))))
        (when (and (null (gethash key table)) (gethash moved table))
          (setq key moved))
        (push key indexed)
        (push line (gethash key lines-by-key))))
    (mapcar (lambda (key)
              (let ((lines (gethash key lines-by-key))
                    (messages (gethash key table))
                    (elisps (gethash (concat key ".el") table)))
                (make-rs-smtpmail--queued
                 :name (or (car messages) (caar lines) key)
                 :lines (mapcar #'cdr lines)
                 :messages messages
                 :elisps elisps
                 :id (gethash key adopted))))
            (delete-dups
             (append (nreverse indexed)
                     (rs-smtpmail--stray-keys directory table adopted))))))

(defun rs-smtpmail--stray-keys (directory table adopted)
  "Return the keys in TABLE of what seem to be queued messages in DIRECTORY.
They may also be in the index.  ADOPTED is that of `rs-smtpmail--origins'."
  (let ((here (file-name-directory
               (rs-smtpmail--queue-key (expand-file-name "x" directory))))
        (index (rs-smtpmail--queue-key (rs-smtpmail--index-file)))
        strays)
    (maphash
     (lambda (key files)
       (cond
        ((not (equal here (file-name-directory key))))
        ((string-suffix-p ".el" key)
         (let ((message (string-remove-suffix ".el" key)))
           ;; One whose message is gone.
           (when (and (null (gethash message table))
                      (or (rs-smtpmail--queue-file-name-p message)
                          (ignore-errors
                            (assq 'smtpmail-recipient-address-list
                                  (rs-smtpmail--stored-values (car files))))))
             (push message strays))))
        ((and (not (equal key index))
              (seq-some #'file-regular-p files)
              (or (gethash (concat key ".el") table)
                  (gethash key adopted)
                  ;; Without recipients: reported, unless it is just being written.
                  (and (rs-smtpmail--queue-file-name-p key)
                       (time-less-p 60 (time-since
                                        (file-attribute-modification-time
                                         (file-attributes (car files))))))))
         (push key strays))))
     table)
    (sort strays #'string<)))

(defun rs-smtpmail--queue-file-name-p (file)
  "Whether FILE has a name such as smtpmail gives to queued messages."
  (string-match-p rs-smtpmail--queue-file-name (file-name-nondirectory file)))

(defun rs-smtpmail--call-with-queue-locked (function)
  "Call FUNCTION while no other Emacs adopts smtpmail's queue.
The lock is Emacs's own for the index, which does not outlive its owner."
  (when rs-smtpmail--adopting
    (user-error "The queue is being sent already"))
  (let ((index (rs-smtpmail--index-file))
        (create-lockfiles t)
        (rs-smtpmail--adopting t))
    (cl-letf (((symbol-function 'ask-user-about-lock)
               (lambda (_file owner)
                 (user-error "The queue is being sent by another Emacs: %s" owner))))
      (lock-file index))
    (unwind-protect
        (funcall function)
      (unlock-file index))))

;;;; One queued message

(defun rs-smtpmail--string-list-p (value)
  "Whether VALUE is a list of strings."
  (and (proper-list-p value) (seq-every-p #'stringp value)))

(defun rs-smtpmail--string-or-nil-p (value)
  "Whether VALUE is a string or nil."
  (or (null value) (stringp value)))

(defun rs-smtpmail--service-p (value)
  "Whether VALUE is a port number or the name of a service."
  (or (natnump value) (stringp value)))

(defun rs-smtpmail--queued-options-p (value)
  "Whether VALUE is a plist as `rs-smtpmail--queued-options' describes it."
  (and (proper-list-p value)
       (cl-evenp (length value))
       (cl-loop for (option wish) on value by #'cddr
                always (pcase option
                         (:not-before (numberp wish))
                         (:copy (stringp wish))))))

(defun rs-smtpmail--stored-values (file)
  "Return an alist of the variables in FILE, a queued message's .el file.
Nothing is evaluated."
  (let ((form (with-temp-buffer
                (let ((coding-system-for-read 'utf-8))
                  (insert-file-contents file))
                (condition-case nil
                    (read (current-buffer))
                  (error (error "%s can't be read" file))))))
    (unless (and (proper-list-p form) (eq (car form) 'setq))
      (error "%s holds something else than `setq'" file))
    (cl-loop for (variable value) on (cdr form) by #'cddr
             for test = (alist-get variable rs-smtpmail--stored-variables)
             ;; Written quoted by some versions.
             for plain = (pcase value (`',quoted quoted) (_ value))
             ;; No server was known when the message was queued.
             unless (and (eq variable 'smtpmail-smtp-server) (null plain))
             when test
             if (funcall test plain) collect (cons variable plain)
             else do (error "%s gives a strange value to %s" file variable))))

(defun rs-smtpmail--origins ()
  "Return a hash table of the ids of messages in the spool by their origins.
These are keys of files in smtpmail's queue, from which they were adopted."
  (let ((origins (make-hash-table :test #'equal)))
    (dolist (entry (rs-smtp-queue-list) origins)
      (when-let* ((origin (plist-get entry :origin)))
        (puthash (rs-smtpmail--queue-key origin) (plist-get entry :id) origins)))))

(defun rs-smtpmail--check-queued (queued)
  "Signal an error if QUEUED is not one message with its recipients."
  (pcase-let (((cl-struct rs-smtpmail--queued name messages elisps id) queued))
    (cond
     ((cdr messages)
      (error "There are several of it: %s" (string-join (sort messages #'string<) ", ")))
     ((cdr elisps)
      (error "Several files tell its recipients: %s"
             (string-join (sort elisps #'string<) ", ")))
     ((and (null messages) elisps)
      (error "The message is missing; %s tells its recipients" (car elisps)))
     ((null messages)
      (error "The message is missing; %s names it" (rs-smtpmail--index-file)))
     ((string-match-p "[:;!]2,[[:alnum:]]*T[[:alnum:]]*\\'" name)
      (error "The message is marked as deleted"))
     ((not (or elisps id))
      (error "%s.el is missing, which tells the recipients"
             (rs-smtpmail--without-flags name))))
    (dolist (file (append messages elisps))
      (unless (file-writable-p (file-name-directory file))
        (error "%s could not be removed after sending" file)))))

(defun rs-smtpmail--adopt (queued)
  "Move the message QUEUED into the spool; return its new id."
  (rs-smtpmail--check-queued queued)
  (let* ((file (car (rs-smtpmail--queued-messages queued)))
         (elisp (car (rs-smtpmail--queued-elisps queued))))
    (prog1 (or (rs-smtpmail--queued-id queued)
               (rs-smtpmail--accept-queued file elisp))
      (condition-case err
          (progn
            (when elisp
              (delete-file elisp))
            (rs-smtpmail--drop-index-lines (rs-smtpmail--queued-lines queued))
            (delete-file file))
        (error
         (error "It stays in the queue, for it can't be removed: %s"
                (error-message-string err)))))))

(defun rs-smtpmail--accept-queued (file elisp)
  "Put the message in FILE into the spool; return its id.
ELISP is the file that tells its recipients."
  (let* ((values (rs-smtpmail--stored-values elisp))
         (recipients (alist-get 'smtpmail-recipient-address-list values)))
    (unless recipients
      (error "%s names no recipients" elisp))
    (cl-progv (mapcar #'car values) (mapcar #'cdr values)
      (with-temp-buffer
        (set-buffer-multibyte nil)
        (insert-file-contents-literally file)
        (let ((smtpmail-mail-address nil))
          (rs-smtpmail--accept recipients (current-buffer)
                               (append (list :origin file)
                                       rs-smtpmail--queued-options)))))))

(defun rs-smtpmail--adopt-queue ()
  "Move the messages in smtpmail's queue into the spool.
Return a list of their ids, and a list of texts about those that could
not be moved; these are left exactly as they are."
  (let (ids problems)
    (when (file-directory-p smtpmail-queue-dir)
      (rs-smtpmail--call-with-queue-locked
       (lambda ()
         (dolist (queued (rs-smtpmail--list-queue))
           (condition-case err
               (push (rs-smtpmail--adopt queued) ids)
             (error (push (format "%s: %s" (rs-smtpmail--queued-name queued)
                                  (error-message-string err))
                          problems)))))))
    (list (nreverse ids) (nreverse problems))))

;;;; Export

(defun rs-smtpmail--new-queue-file ()
  "Return a name for one more file in smtpmail's queue.
It was never one of a message that is in the spool now."
  (let (file)
    (while (or (null file) (file-exists-p file) (file-exists-p (concat file ".el")))
      (setq file (expand-file-name
                  (convert-standard-filename
                   (format-time-string (format "%%Y-%%m-%%d_%%H:%%M:%%S_%d"
                                               (random 100000000))))
                  smtpmail-queue-dir)))
    file))

(defun rs-smtpmail--options-to-queue (entry)
  "Return what is to be stored with ENTRY that smtpmail knows nothing of."
  (let ((options (cl-loop for option in '(:not-before :copy)
                          for wish = (plist-get entry option)
                          when wish append (list option wish))))
    (and options (list 'rs-smtpmail--queued-options options))))

(defun rs-smtpmail--write-stored-values (entry file)
  "Write FILE, a queued message's .el file, for ENTRY.
Recipients who have got the message are left out."
  (let* ((server (plist-get entry :server))
         (recipients (seq-remove (lambda (recipient)
                                   (eq (plist-get recipient :state) 'accepted))
                                 (plist-get entry :recipients)))
         (addresses (mapcar (lambda (recipient) (plist-get recipient :address))
                            recipients)))
    (with-temp-file file
      (set-buffer-file-coding-system 'utf-8-unix)
      (let ((print-length nil)
            (print-level nil))
        (prin1 `(setq smtpmail-recipient-address-list ,addresses
                      smtpmail-smtp-server ,(plist-get server :host)
                      smtpmail-smtp-service ,(plist-get server :port)
                      smtpmail-stream-type ,(plist-get server :stream-type)
                      smtpmail-smtp-user ,(plist-get server :user)
                      ,@(rs-smtpmail--options-to-queue entry))
               (current-buffer)))
      (insert "\n"))))

(defun rs-smtpmail--export (entry)
  "Move ENTRY, of the spool, to smtpmail's queue."
  (let* ((id (plist-get entry :id))
         (file (rs-smtpmail--new-queue-file))
         done)
    (with-file-modes #o600
      (unwind-protect
          (progn
            ;; Until all is done, the one without recipients is ours to delete.
            (rs-smtp-queue-export id file)
            (rs-smtpmail--write-stored-values entry (concat file ".el"))
            (setq done t))
        (unless done
          (mapc #'delete-file (list (concat file ".el") file))))
      (let ((coding-system-for-write 'utf-8-unix))
        (write-region (concat file "\n") nil (rs-smtpmail--index-file) t 'silent)))
    (rs-smtp-queue-remove id)))

;;;###autoload
(defun rs-smtpmail-export-queue (&optional unconfirmed)
  "Move the messages in the spool to smtpmail's queue, `smtpmail-queue-dir'.
There smtpmail, or this package on another machine, finds them when queued
mail is sent.  Messages that are just being sent or edited stay, and so do
those that the server may have got already, unless UNCONFIRMED, the prefix
argument, is non-nil.  When a message is to be sent, and copies that are to
be filed then, only this package finds in the queue.  Return the number of
messages moved."
  (interactive "P")
  (make-directory smtpmail-queue-dir t)
  (let ((states `(pending held failed needs-user scheduled
                          ,@(and unconfirmed '(unconfirmed))))
        (moved 0)
        (left 0))
    (rs-smtpmail--call-with-queue-locked
     (lambda ()
       (dolist (entry (rs-smtp-queue-list))
         (condition-case err
             (if (or (not (memq (rs-smtpmail--outbox-state entry) states))
                     (and (not unconfirmed)
                          (rs-smtpmail--may-be-delivered-p entry))
                     ;; It is in the queue already: adopting it was interrupted.
                     (when-let* ((origin (plist-get entry :origin)))
                       (file-exists-p origin)))
                 (cl-incf left)
               (rs-smtpmail--export entry)
               (cl-incf moved))
           ((rs-smtp-error file-error)
            (cl-incf left)
            (rs-smtpmail--warn :error "Message to %s stays in the spool: %s"
                               (rs-smtpmail--summary entry)
                               (error-message-string err)))))))
    (message "%d exported to %s, %d left in the spool"
             moved (abbreviate-file-name smtpmail-queue-dir) left)
    moved))

;;;; Commands

;;;###autoload
(defun rs-smtpmail-send-queued-mail ()
  "Send what waits in smtpmail's queue and in the spool, now.
Messages in `smtpmail-queue-dir' are moved into the spool first.  What was
refused, is on hold, or may have been delivered already, is left alone."
  (interactive)
  (pcase-let* ((`(,ids ,problems) (rs-smtpmail--adopt-queue))
               (_ (rs-smtp-queue-flush))
               (entries (rs-smtp-queue-list))
               ;; Not what has been queued for later.
               (later (rs-smtpmail--ids-in-state entries 'scheduled))
               (waiting (delete-dups
                         (append (seq-difference ids later)
                                 (rs-smtpmail--ids-in-state entries 'pending 'sending)))))
    (setq rs-smtpmail--resumed t)
    (if (rs-smtpmail--synchronous-p)
        (rs-smtpmail--report-flush (rs-smtpmail--wait waiting) problems)
      (when problems
        (rs-smtpmail--warn :error "Not sent, and left in smtpmail's queue:\n%s"
                           (string-join problems "\n")))
      (message (ngettext "Sending %d message" "Sending %d messages" (length waiting))
               (length waiting)))))

(defun rs-smtpmail--count-waiting ()
  "Return how many messages `rs-smtpmail-send-queued-mail' would send."
  (+ (length (rs-smtpmail--ids-in-state (rs-smtp-queue-list)
                                        'pending 'needs-credentials 'needs-user))
     (if (file-directory-p smtpmail-queue-dir)
         (seq-count (lambda (queued)
                      (ignore-errors (rs-smtpmail--check-queued queued) t))
                    (rs-smtpmail--list-queue))
       0)))

(defun rs-smtpmail--ids-in-state (entries &rest states)
  "Return the ids of those of ENTRIES whose state is one of STATES."
  (delq nil (mapcar (lambda (entry)
                      (and (memq (plist-get entry :state) states)
                           (plist-get entry :id)))
                    entries)))

(defun rs-smtpmail--report-flush (events problems)
  "Signal an error if one of EVENTS is a failure, or if there are PROBLEMS."
  (let ((failures (seq-remove (lambda (event) (eq (plist-get event :event) 'sent))
                              events)))
    (when (or failures problems)
      (error "Sending failed for %d of %d queued messages:\n%s"
             (+ (length failures) (length problems))
             (+ (length events) (length problems))
             (mapconcat #'identity
                        (append problems
                                (mapcar (lambda (event)
                                          (concat (rs-smtpmail--summary
                                                   (plist-get event :entry))
                                                  ": "
                                                  (rs-smtpmail--explanation event)))
                                        failures))
                        "\n")))))

;;;###autoload
(defun rs-smtpmail-resume ()
  "Take up what an earlier Emacs left in the spool, each message at its time."
  (interactive)
  (let ((count (rs-smtp-queue-resume)))
    (setq rs-smtpmail--resumed t)
    (when (or (> count 0) (called-interactively-p 'interactive))
      (message (ngettext "%d message waits in the spool, and is being sent"
                         "%d messages wait in the spool, and are being sent"
                         count)
               count))))

(defun rs-smtpmail--read-entry (prompt)
  "Ask with PROMPT for a message in the spool; return its id."
  (let ((choices (mapcar (lambda (entry)
                           (cons (format "%s: %s, %s"
                                         (plist-get entry :id)
                                         (plist-get entry :state)
                                         (rs-smtpmail--summary entry))
                                 (plist-get entry :id)))
                         (rs-smtp-queue-list))))
    (unless choices
      (user-error "There is no message in the spool"))
    (cdr (assoc (completing-read prompt choices nil t nil nil (caar choices))
                choices))))

;;;###autoload
(defun rs-smtpmail-retry (id)
  "Try again to send message ID, be it refused, on hold or waiting.
Ask first if the server may have it already, or if it is being edited."
  (interactive (list (rs-smtpmail--read-entry "Send again: ")))
  (when (rs-smtpmail--confirm-sending (list id))
    (rs-smtp-queue-retry id)
    (rs-smtpmail--changed id)))

;;;###autoload
(defun rs-smtpmail-remove (id)
  "Give up message ID: delete it from the spool."
  (interactive (list (rs-smtpmail--read-entry "Delete from the spool: ")))
  (when (or noninteractive
            (yes-or-no-p (format "Delete the message to %s for good? "
                                 (rs-smtpmail--addresses (rs-smtp-queue-list id)))))
    (rs-smtp-queue-remove id)))

(provide 'rs-smtpmail-queue)

;;; rs-smtpmail-queue.el ends here
