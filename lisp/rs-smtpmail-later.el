;;; rs-smtpmail-later.el --- Send mail later, or take it back before  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; What a mail's header and its user wish for it beside being sent: to be kept
;; back for a moment or until some time, and to be filed.  Both are done by the
;; spool, so that they outlive this Emacs.

;;; Code:

(require 'rs-smtpmail-message)
(require 'rs-smtpmail-copy)
(eval-when-compile (require 'cl-lib))

(defvar message-encoded-mail-cache)
(defvar message-sent-message-via)

(autoload 'rs-smtpmail--parse-time "rs-smtpmail-time")
(autoload 'rs-smtpmail--outbox-take-out "rs-smtpmail-outbox-edit")

(declare-function message-set-auto-save-file-name "message")
(declare-function message-news-p "message")
(declare-function org-read-date "org"
                  (&optional with-time to-time from-string prompt
                             default-time default-input inactive))
(declare-function rs-smtpmail--read-entry "rs-smtpmail-queue")

;;;; Internal variables

(defvar rs-smtpmail--send-at nil
  "The time at which \\[rs-smtpmail-send-at] wants the next mail sent.")

(defconst rs-smtpmail--send-at-field "^X-Rs-Smtpmail-Send-At[ \t]*:"
  "Regexp for the start of the field that tells when to send a mail.")

;;;; The mail under way

(defun rs-smtpmail--wanted-time ()
  "Return when the mail in this buffer is to be sent, or nil for now."
  (let* ((text (car (rs-smtpmail--field-values rs-smtpmail--send-at-field)))
         (time (cond (rs-smtpmail--send-at)
                     ((member text '(nil "")) nil)
                     (t (condition-case err
                            (rs-smtpmail--parse-time text)
                          (user-error
                           (user-error "Sending failed: X-Rs-Smtpmail-Send-At: %s"
                                       (error-message-string err))))))))
    (and time (time-less-p nil time) time)))

(defun rs-smtpmail--with-wishes (function)
  "Call FUNCTION, which sends the mail in this buffer, to do all that is wished.
Meanwhile `rs-smtpmail--under-way' has the keys

  :buffer      the buffer in which the mail is composed
  :is-message  whether it is Message's, and not the current one
  :locals      options that are in force for this mail only, an alist
  :time        when to send it, or nil for now
  :delay       for how many seconds to keep it back, or nil
  :deferred    a plist with the copies to be filed after sending, or nil
  :filed       the copies that the mode files
  :draft       if the mail may be taken back, its text
  :options     for `rs-smtp-send'"
  (let* ((here (current-buffer))
         (buffer (rs-smtpmail--compose-buffer))
         (is-message (not (eq buffer here)))
         (time (rs-smtpmail--wanted-time))
         (locals (with-current-buffer buffer (rs-smtpmail--local-options)))
         ;; smtpmail's queue knows of no times.
         (is-queued (and smtpmail-queue-mail (null time)))
         (smtpmail-queue-mail is-queued)
         (rs-smtpmail--under-way
          ;; Message does not take our options to its temporary buffer.
          (with-current-buffer buffer
            (append (list :locals locals)
                    (rs-smtpmail--wishes is-message time is-queued)))))
    (setq rs-smtpmail--send-at nil)
    (when is-message
      (rs-smtpmail--clean-cache buffer))
    (rs-smtpmail--without-fields
     (if (and (plist-get rs-smtpmail--under-way :deferred) (not is-message))
         (concat rs-smtpmail--send-at-field "\\|^Fcc:")
       rs-smtpmail--send-at-field)
     function)))

(defun rs-smtpmail--local-options ()
  "Return the options with other values in this buffer than in general, an alist."
  (mapcan (lambda (option)
            (and (boundp option)
                 (default-boundp option)
                 (not (equal (symbol-value option) (default-toplevel-value option)))
                 (list (cons option (symbol-value option)))))
          rs-smtpmail--options))

(defun rs-smtpmail--wishes (is-message time is-queued)
  "Return what is wished for the mail in this buffer, to be sent at TIME or now.
If IS-QUEUED, it goes to smtpmail's queue.
For IS-MESSAGE and the value, a plist, see `rs-smtpmail--with-wishes'."
  (let* ((delay (and (null time)
                     (> rs-smtpmail-undo-delay 0)
                     (not (rs-smtpmail--synchronous-p))
                     (not is-queued)
                     rs-smtpmail-undo-delay))
         (redated (and time (eq rs-smtpmail-send-at-date 'sending)))
         (copies (rs-smtpmail--copies is-message))
         (deferred (and rs-smtpmail-defer-fcc
                        (not is-queued)
                        (rs-smtpmail--deferrable copies is-message)))
         (is-deferred (or (plist-get deferred :fcc) (plist-get deferred :gcc))))
    (list :buffer (current-buffer)
          :is-message is-message
          :time time
          :delay delay
          :deferred (and is-deferred deferred)
          :filed (mapcan (lambda (key)
                           (seq-difference (plist-get copies key)
                                           (plist-get deferred key)))
                         '(:fcc :gcc))
          :draft (and (or time delay)
                      (save-restriction
                        (widen)
                        (buffer-substring-no-properties (point-min) (point-max))))
          :options (append
                    (and rs-smtpmail-dsn
                         (list :dsn rs-smtpmail-dsn))
                    (cond (time (list :not-before (float-time time)
                                      :date-at-sending redated))
                          (delay (list :not-before (+ (float-time) delay))))
                    (and is-deferred
                         (list :copy (rs-smtpmail--copy-text deferred is-message
                                                             redated)))))))

(defun rs-smtpmail--clean-cache (buffer)
  "Take our field out of what Message files of the mail in BUFFER."
  (let ((case-fold-search t)
        (cache (buffer-local-value 'message-encoded-mail-cache buffer)))
    (when (string-match-p rs-smtpmail--send-at-field cache)
      (with-temp-buffer
        (insert cache)
        (rs-smtpmail--take-fields rs-smtpmail--send-at-field)
        (let ((cleaned (buffer-string)))
          (with-current-buffer buffer
            (setq message-encoded-mail-cache cleaned)))))))

(defun rs-smtpmail--let-go (id wishes)
  "Do what is left to do for the mail ID, now accepted, by its WISHES.
An element of `rs-smtpmail--recallable' has the keys :buffer, :is-message,
:locals, :time and :draft of WISHES."
  (let ((deferred (plist-get wishes :deferred)))
    (when (and deferred (plist-get wishes :is-message))
      (with-current-buffer (plist-get wishes :buffer)
        (rs-smtpmail--hide-copies deferred)))
    (when (plist-get wishes :draft)
      (push (cons id wishes) rs-smtpmail--recallable)
      (add-hook 'rs-smtpmail--event-functions #'rs-smtpmail--forget-recallable)
      (unless noninteractive
        ;; When the command that sends has said all that it says.
        (run-at-time 0 nil #'rs-smtpmail--offer-undo id
                     (plist-get wishes :time) (plist-get wishes :delay))))))

(defun rs-smtpmail--forget-recallable (event)
  "Forget the draft of the message of EVENT if that is gone."
  (when (or (eq (plist-get event :event) 'sent) (plist-get event :removed))
    (setq rs-smtpmail--recallable
          (assoc-delete-all (plist-get (plist-get event :entry) :id)
                            rs-smtpmail--recallable))))

;;;; Taking back

(defun rs-smtpmail--offer-undo (id time delay)
  "Offer to take back message ID, to be sent at TIME, or else after DELAY.
If the next command is `undo', it does that."
  (when (and (assoc id rs-smtpmail--recallable)
             (not (active-minibuffer-window)))
    (let ((map (make-sparse-keymap)))
      (define-key map [remap undo]
        (lambda ()
          (interactive)
          (rs-smtpmail-undo-send id)))
      (set-transient-map map))
    (message "%s; %s"
             (if time
                 (format-time-string "To be sent %a %F at %R" time)
               (format (ngettext "To be sent in %s second"
                                 "To be sent in %s seconds"
                                 (round delay))
                       delay))
             (substitute-command-keys "\\[undo] now or \\[rs-smtpmail-undo-send] \
takes it back"))))

;;;###autoload
(defun rs-smtpmail-undo-send (&optional id)
  "Take back the message sent last, if it has not gone, and edit it again.
With a prefix argument, ask which of all the messages in the spool it is to
be.  From Lisp, ID names one.  Messages can be taken back that are kept back
by `rs-smtpmail-undo-delay' or until some time, and those that could not be
sent so far."
  (interactive
   (list (and current-prefix-arg
              (progn (require 'rs-smtpmail-queue)
                     (rs-smtpmail--read-entry "Take back: ")))))
  (let* ((id (or id
                 (car (seq-find (lambda (recallable)
                                  (rs-smtp-queue-list (car recallable)))
                                rs-smtpmail--recallable))
                 (user-error "No message sent in this session can be taken back")))
         (entry (or (rs-smtp-queue-list id)
                    (user-error "The message has been sent already")))
         (draft (cdr (assoc id rs-smtpmail--recallable))))
    (pcase (plist-get entry :state)
      ('sending (user-error "It is too late: the message is being sent"))
      ('filing (user-error "The message has been sent already")))
    (cond
     ((null draft) (rs-smtpmail--outbox-take-out entry))
     ((rs-smtpmail--still-there-p entry draft)
      (rs-smtp-queue-remove id)
      (rs-smtpmail--reopen draft))
     (t (rs-smtpmail--compose-again entry draft)))
    (message "The message has not been sent%s"
             (if-let ((filed (gethash id rs-smtpmail--filed-at-once)))
                 (format ", but a copy has been filed in %s" filed)
               ""))))

(defun rs-smtpmail--still-there-p (entry draft)
  "Whether the message of ENTRY is still in the buffer of its DRAFT."
  (let ((buffer (plist-get draft :buffer)))
    (and (buffer-live-p buffer)
         (with-current-buffer buffer
           (if (plist-get draft :is-message)
               (equal (plist-get entry :message-id)
                      (car (rs-smtpmail--field-values "^Message-ID:")))
             ;; A buffer for mail mode may be used again for the next mail.
             (equal (buffer-string) (plist-get draft :draft)))))))

(defun rs-smtpmail--reopen (draft)
  "Go back to the buffer of DRAFT, as it was before sending."
  (pop-to-buffer (plist-get draft :buffer))
  (let ((fields (rs-smtpmail--draft-fields draft)))
    (when (plist-get draft :is-message)
      (rs-smtpmail--take-fields "^[FG]cc:")
      (rs-smtpmail--insert-fields fields)
      (setq message-sent-message-via nil)
      (when (string-match "\\`\\*sent " (buffer-name))
        (rename-buffer (replace-match "*unsent " t t (buffer-name)) t))))
  (rs-smtpmail--ready-draft draft))

(defun rs-smtpmail--draft-fields (draft)
  "Return the Fcc and Gcc fields in the text of DRAFT."
  (with-temp-buffer
    (insert (plist-get draft :draft))
    (string-join (rs-smtpmail--fields "^[FG]cc:"))))

(defun rs-smtpmail--compose-again (entry draft)
  "Take ENTRY out of the spool, into a new buffer with the text of DRAFT."
  (let ((buffer (generate-new-buffer "*unsent mail*"))
        (taken nil))
    (unwind-protect
        (with-current-buffer buffer
          (if (plist-get draft :is-message)
              (message-mode)
            (mail-mode))
          (insert (plist-get draft :draft))
          (let ((inhibit-message t))
            (pcase-dolist (`(,option . ,value) (plist-get draft :locals))
              (set (make-local-variable option) value)))
          (setq buffer-undo-list nil)
          (rs-smtp-queue-remove (plist-get entry :id))
          (setq taken t))
      (unless taken
        (with-current-buffer buffer
          (set-buffer-modified-p nil)
          (kill-buffer))))
    (pop-to-buffer buffer)
    (rs-smtpmail--ready-draft draft)))

(defun rs-smtpmail--ready-draft (draft)
  "Make this buffer one with an unsent mail; DRAFT has the time to send it."
  (when (and (plist-get draft :time)
             (null (rs-smtpmail--fields rs-smtpmail--send-at-field)))
    (rs-smtpmail--insert-fields
     (format-time-string "X-Rs-Smtpmail-Send-At: %F %R\n" (plist-get draft :time))))
  (when (and (plist-get draft :is-message) (not buffer-file-name))
    (message-set-auto-save-file-name))
  (set-buffer-modified-p t))

;;;; Sending later

(defun rs-smtpmail--read-time ()
  "Ask for a time; return it as `rs-smtpmail-send-at' takes it."
  (if (and (featurep 'org) (fboundp 'org-read-date))
      (org-read-date t t nil "Send at: ")
    (read-string "Send at (16:30, 5h, tomorrow 9:00, mon, 2026-12-01 08:00): ")))

(defun rs-smtpmail--send-command ()
  "Return the command that sends the mail in this buffer, which must be ours."
  (let ((message (derived-mode-p 'message-mode))
        (bound (key-binding (kbd "C-c C-c"))))
    (unless (or message (derived-mode-p 'mail-mode))
      (user-error "There is no mail in this buffer"))
    (when (and message (message-news-p))
      (user-error "News can't be sent later"))
    (let ((function (rs-smtpmail--sending-function message)))
      (unless (rs-smtpmail--ours-p function)
        (user-error "This mail would be sent by `%s', which can't send it later"
                    function)))
    (if (and (symbolp bound) (commandp bound)
             (string-match-p "send" (symbol-name bound)))
        bound
      (let ((command (if message 'message-send-and-exit 'mail-send-and-exit)))
        (or (command-remapping command) command)))))

;;;###autoload
(defun rs-smtpmail-send-at (time)
  "Send the mail in this buffer at TIME, by the buffer's own command.
TIME is a time value, or a text such as \"16:30\", \"5h\", \"tomorrow 9:00\",
\"mon 8:00\" or \"2026-12-01 08:00\"; a day without a time means 8:00.  The
message waits in the spool, and goes out at that time, or when Emacs runs
again after it.  Until then \\[rs-smtpmail-undo-send] takes it back.

A field X-Rs-Smtpmail-Send-At with such a text in the mail's header does the
same, however the mail is sent.  For its Date see `rs-smtpmail-send-at-date'."
  (interactive (progn (rs-smtpmail--send-command)
                      (list (rs-smtpmail--read-time))))
  (let ((command (rs-smtpmail--send-command))
        (rs-smtpmail--send-at (if (stringp time)
                                  (rs-smtpmail--parse-time time)
                                time)))
    (call-interactively command)
    (when rs-smtpmail--send-at
      (rs-smtpmail--warn :warning "The mail was sent at once, or not at all: \
`%s' has not sent it by this package" command))))

(provide 'rs-smtpmail-later)

;;; rs-smtpmail-later.el ends here
