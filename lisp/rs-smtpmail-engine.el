;;; rs-smtpmail-engine.el --- Start, hear and stop the native engine  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The native threads put events into an outbox and wake Emacs by a byte on a
;; pipe.  The pipe's filter only fetches the events; they are handled from a
;; timer, or by whoever waits for an outcome.

;;; Code:

(require 'rs-smtpmail)
(require 'rs-smtpmail-ask)
(require 'rs-smtpmail-auth)
(require 'rs-smtpmail-tls)
(require 'rs-smtpmail-watch)
(eval-when-compile (require 'cl-lib))

(autoload 'rfc2047-decode-string "rfc2047")
(autoload 'rs-smtpmail--ask-about "rs-smtpmail-unconfirmed")
(autoload 'rs-smtpmail--file-copy "rs-smtpmail-copy")
(autoload 'rs-smtpmail--look-for-unconfirmed "rs-smtpmail-unconfirmed")
(autoload 'rs-smtpmail--notify-about "rs-smtpmail-notify")

(defvar smtpmail-retries)

(declare-function rs-smtp--drain "ext:rs-smtpmail-module" () t)
(declare-function rs-smtp--end-idle "ext:rs-smtpmail-module" (seconds) t)
(declare-function rs-smtp--start "ext:rs-smtpmail-module"
                  (pipe-process spool-directory settings) t)
(declare-function rs-smtp--started-p "ext:rs-smtpmail-module" () t)
(declare-function rs-smtp--stop "ext:rs-smtpmail-module" (seconds) t)

;;;; Internal variables

(defvar rs-smtpmail--process nil
  "Pipe process by which the engine wakes Emacs.")

(defvar rs-smtpmail--spool nil
  "The directory that the engine was started with.")

(defvar rs-smtpmail--events nil
  "Events fetched and not yet handled, oldest first.")

(defvar rs-smtpmail--events-timer nil
  "Timer that is going to handle `rs-smtpmail--events'.")

(defvar rs-smtpmail--callbacks (make-hash-table :test #'equal)
  "Callbacks given to `rs-smtp-send', by the entry's id.")

(defvar rs-smtpmail--awaited (make-hash-table :test #'equal)
  "The entries that somebody waits for, by id.
The value is the number of attempts before, and then the outcome, an event.")

(defvar rs-smtpmail--deferred (make-hash-table :test #'equal)
  "Ids of entries whose transient trouble the user has been told.")

(defvar rs-smtpmail--filed-at-once (make-hash-table :test #'equal)
  "Where copies of entries have been filed before they were sent, by id.")

(defvar rs-smtpmail--told-troubles nil
  "Transient troubles that the user has been told since something was sent.")

(defvar rs-smtpmail--event-functions nil
  "Functions to call with each event, after it has been handled.")

(defvar rs-smtpmail--retry-pause 1
  "Seconds between attempts while somebody waits; as many as smtpmail makes.")

(defconst rs-smtpmail--stop-seconds 3
  "How long leaving Emacs may take for the sake of open connections.")

;;;; Start and stop

(defun rs-smtpmail--start ()
  "Start the engine if there is none.
The native functions call this when they need it."
  (unless (rs-smtp--started-p)
    (let ((process (make-pipe-process :name "rs-smtpmail"
                                      :noquery t
                                      :coding 'no-conversion
                                      :sentinel #'ignore)))
      (setq rs-smtpmail--spool (expand-file-name rs-smtpmail-spool-directory))
      (condition-case err
          (rs-smtp--start process rs-smtpmail--spool (rs-smtpmail--settings))
        (error
         (delete-process process)
         (signal (car err) (cdr err))))
      (process-put process 'spool rs-smtpmail--spool)
      (rs-smtpmail--attach process))))

(defun rs-smtpmail--attach (process)
  "Hear the engine through PROCESS, and look after it when Emacs ends."
  (setq rs-smtpmail--process process
        rs-smtpmail--spool (process-get process 'spool))
  (set-process-filter process #'rs-smtpmail--wake)
  (unless noninteractive
    (run-with-idle-timer 2 nil #'rs-smtpmail--look-for-unconfirmed))
  (add-hook 'kill-emacs-query-functions #'rs-smtpmail--before-leaving)
  (add-hook 'kill-emacs-hook #'rs-smtpmail--stop))

(defun rs-smtpmail--attach-again ()
  "Hear the engine if this package has been unloaded and loaded again.
The module stays mapped meanwhile, and the engine starts once only."
  (let ((process (get-process "rs-smtpmail")))
    (when (and process (rs-smtp--started-p))
      (rs-smtpmail--attach process))))

(defun rs-smtpmail--release ()
  "Stop the engine since this package is being unloaded."
  (when (rs-smtp--started-p)
    (rs-smtpmail--stop)
    (set-process-filter rs-smtpmail--process #'ignore)
    (let ((left (length (rs-smtp-queue-list))))
      (unless (zerop left)
        (message (ngettext "%d message stays in %s" "%d messages stay in %s" left)
                 left (abbreviate-file-name rs-smtpmail--spool))))))

(defun rs-smtpmail--stop ()
  "Stop the engine; what it has not sent stays in the spool."
  ;; In batch Emacs, an error would keep it from being left.
  (with-demoted-errors "Stopping to send mail: %S"
    (when (rs-smtp--started-p)
      (rs-smtp--stop rs-smtpmail--stop-seconds))))

(defun rs-smtpmail--register-callback (id callback)
  "Arrange for CALLBACK to get the outcomes of entry ID.
This is for `rs-smtp-send'."
  (puthash id callback rs-smtpmail--callbacks))

;;;; Events

(defun rs-smtpmail--wake (&rest _)
  "Fetch the engine's events and see to it that they are handled."
  (setq rs-smtpmail--events (nconc rs-smtpmail--events (rs-smtp--drain)))
  (rs-smtpmail--schedule-events))

(defun rs-smtpmail--schedule-events ()
  "Handle the events that have been fetched as soon as Emacs is ready."
  (when (and rs-smtpmail--events (not rs-smtpmail--events-timer))
    (setq rs-smtpmail--events-timer
          (run-at-time 0 nil #'rs-smtpmail--handle-events))))

(defun rs-smtpmail--handle-events ()
  "Handle the events that have been fetched."
  (when rs-smtpmail--events-timer
    (cancel-timer rs-smtpmail--events-timer)
    (setq rs-smtpmail--events-timer nil))
  (unwind-protect
      (while rs-smtpmail--events
        (rs-smtpmail--guarded "handling an event"
          #'rs-smtpmail--handle-event (pop rs-smtpmail--events)))
    ;; Only what no handler can catch gets here with events left.
    (rs-smtpmail--schedule-events)))

(defun rs-smtpmail--guarded (doing function &rest arguments)
  "Call FUNCTION with ARGUMENTS; make its error a warning about DOING that."
  (declare (indent 1))
  (condition-case err
      (apply function arguments)
    (quit nil)
    (error (rs-smtpmail--warn :error "Error in %s: %s"
                              doing (error-message-string err)))))

(defun rs-smtpmail--warn (level format &rest arguments)
  "Show a warning of LEVEL that stays visible, made of FORMAT and ARGUMENTS."
  (display-warning 'rs-smtpmail (apply #'format format arguments) level))

(defun rs-smtpmail--handle-event (event)
  "Do what EVENT asks for, or tell the user about it."
  (pcase (plist-get event :event)
    ('problem (rs-smtpmail--warn :error "%s" (plist-get event :text)))
    ('credentials (rs-smtpmail--answer-credentials event))
    ('credentials-accepted (rs-smtpmail--save-credentials event))
    ('passphrase (rs-smtpmail--answer-passphrase event))
    ('certificate (rs-smtpmail--answer-certificate event))
    ('client-certificate (rs-smtpmail--answer-client-certificate event))
    ('token (rs-smtpmail--answer-token event))
    ('refresh-token-replaced (rs-smtpmail--tell-token-replaced event))
    ('trace (rs-smtpmail--show-trace event))
    ('progress (rs-smtpmail--show-progress event))
    ('check (rs-smtpmail--show-check event))
    ((or 'sent 'failed 'deferred 'needs-user 'unconfirmed 'cancelled)
     (rs-smtpmail--forget-progress (plist-get (plist-get event :entry) :id))
     (rs-smtpmail--handle-outcome event)))
  (when (rs-smtpmail--to-be-filed-p event)
    (rs-smtpmail--file-copy event))
  (run-hook-with-args 'rs-smtpmail--event-functions event))

(defun rs-smtpmail--changed (id)
  "Tell all who follow events that something was done to entry ID by Lisp."
  (rs-smtpmail--guarded "telling of a change"
    #'run-hook-with-args 'rs-smtpmail--event-functions
    (list :event 'changed :id id)))

(defun rs-smtpmail--handle-outcome (event)
  "Tell everybody concerned of EVENT, an outcome."
  (let* ((kind (plist-get event :event))
         (entry (plist-get event :entry))
         (id (plist-get entry :id))
         (callback (gethash id rs-smtpmail--callbacks))
         (awaited (gethash id rs-smtpmail--awaited)))
    (when awaited
      (puthash id event rs-smtpmail--awaited))
    (when (or (eq kind 'sent) (plist-get event :removed))
      (remhash id rs-smtpmail--callbacks)
      (remhash id rs-smtpmail--filed-at-once))
    (cond
     ((eq kind 'sent)
      (setq rs-smtpmail--told-troubles nil)
      (unless callback
        (message "Sent to %s" (rs-smtpmail--summary entry))))
     ((not awaited)
      (rs-smtpmail--tell-trouble event)))
    (when rs-smtpmail-notify
      (rs-smtpmail--notify-about event))
    (when (and (eq kind 'unconfirmed) (not awaited))
      (rs-smtpmail--ask-about (list id)))
    (when callback
      (rs-smtpmail--guarded (format "the callback for message %s" id)
        callback event))
    (pcase kind
      ('sent (rs-smtpmail--run 'rs-smtpmail-sent-functions entry))
      ((or 'failed 'needs-user 'unconfirmed)
       (rs-smtpmail--run 'rs-smtpmail-failed-functions entry)))
    (when (or (memq kind '(sent failed)) (plist-get event :removed))
      (remhash id rs-smtpmail--deferred))))

(defun rs-smtpmail--to-be-filed-p (event)
  "Whether the copy of the message of EVENT is to be filed now."
  (let ((entry (plist-get event :entry)))
    (and (plist-get entry :copy)
         (not (plist-get event :removed))
         (seq-some (lambda (recipient)
                     (eq (plist-get recipient :state) 'accepted))
                   (plist-get entry :recipients)))))

(defun rs-smtpmail--run (hook entry)
  "Call each function on HOOK with ENTRY, whatever the others do."
  (run-hook-wrapped hook
                    (lambda (function)
                      (rs-smtpmail--guarded (format "`%s' of `%s'" function hook)
                        function entry)
                      nil)))

;;;; What the user is told

(defun rs-smtpmail--tell-trouble (event)
  "Tell the user of EVENT, an outcome that is no success."
  (let* ((kind (plist-get event :event))
         (entry (plist-get event :entry))
         (id (plist-get entry :id)))
    (unless (or (eq kind 'cancelled)
                (and (eq kind 'deferred) (gethash id rs-smtpmail--deferred)))
      (when (eq kind 'deferred)
        (puthash id t rs-smtpmail--deferred))
      (if (and (eq kind 'deferred)
               (member (plist-get event :error) rs-smtpmail--told-troubles))
          ;; A server that is down, and not the first message that waits for it.
          (message "Not yet sent to %s, for the same reason"
                   (rs-smtpmail--summary entry 'pending))
        (when (eq kind 'deferred)
          (push (plist-get event :error) rs-smtpmail--told-troubles))
        (rs-smtpmail--warn (if (eq kind 'deferred) :warning :error)
                           "%s to %s\n%s  %s"
                           (if (eq kind 'deferred) "Not yet sent" "Not sent")
                           (rs-smtpmail--summary entry 'pending 'failed 'unconfirmed)
                           (rs-smtpmail--explanation event)
                           (rs-smtpmail--link "Show it in the outbox" id))))))

(defun rs-smtpmail--link (text id)
  "Return TEXT as a button for showing entry ID in the outbox."
  (make-text-button (copy-sequence text) nil
                    'action (lambda (button)
                              (rs-smtpmail-outbox (button-get button 'entry)))
                    'entry id
                    'follow-link t
                    'help-echo "Show this message in the outbox"))

(defun rs-smtpmail--addresses (entry &rest states)
  "Return ENTRY's recipients, those in STATES if given, as one text."
  (mapconcat (lambda (recipient) (plist-get recipient :address))
             (seq-filter (lambda (recipient)
                           (or (null states)
                               (memq (plist-get recipient :state) states)))
                         (plist-get entry :recipients))
             ", "))

(defun rs-smtpmail--summary (entry &rest states)
  "Return a short text for ENTRY: the recipients and the subject.
With STATES, only the recipients that are in one of them."
  (let ((subject (rs-smtpmail--decoded-subject entry)))
    (concat (apply #'rs-smtpmail--addresses entry states)
            (unless (equal subject "")
              (format " (%s)" subject)))))

(defun rs-smtpmail--decoded-subject (entry)
  "Return the subject of ENTRY, decoded and on one line."
  (let ((subject (or (plist-get entry :subject) "")))
    (replace-regexp-in-string
     "[[:cntrl:]]+" " "
     (if (string-search "=?" subject)
         (rfc2047-decode-string subject)
       subject))))

(defun rs-smtpmail--explanation (event)
  "Return lines about the trouble of EVENT and what the user can do."
  (let* ((entry (plist-get event :entry))
         (filed (gethash (plist-get entry :id) rs-smtpmail--filed-at-once))
         (accepted (rs-smtpmail--addresses entry 'accepted)))
    (concat (or (plist-get event :error) (plist-get entry :error) "No reason given")
            "\n"
            (unless (string-empty-p accepted)
              (format "It was accepted for %s.\n" accepted))
            (when filed
              (format "A copy has been filed already, in %s.\n" filed))
            (rs-smtpmail--advice event))))

(defun rs-smtpmail--advice (event)
  "Return where the message of EVENT is now, and what the user can do."
  (let* ((entry (plist-get event :entry))
         (next-try (plist-get entry :next-try))
         (kept (format "The message is kept in %s (%s)"
                       (abbreviate-file-name rs-smtpmail-spool-directory)
                       (plist-get entry :id)))
         (commands "M-x rs-smtpmail-retry sends it again, M-x rs-smtpmail-remove gives it up."))
    (pcase (plist-get event :event)
      ('deferred
       (format "%s and is tried again%s; M-x rs-smtpmail-send-queued-mail tries now."
               kept
               (if next-try (format-time-string " at %H:%M" next-try) "")))
      ('unconfirmed
       (format "%s.  The server may have it: check before sending it twice.  %s"
               kept commands))
      ('needs-user
       (format "%s.  %s, then M-x rs-smtpmail-retry sends it."
               kept
               (pcase (plist-get event :reason)
                 ('auth "Check user name and password (`auth-sources')")
                 ('tls "Check the server's certificate and `smtpmail-stream-type'")
                 (_ "Correct the settings"))))
      ('cancelled (format "%s, on hold.  %s" kept commands))
      (_ (format "%s.  %s" kept commands)))))

;;;; Waiting

(defun rs-smtpmail--wait (ids)
  "Wait for an outcome of each of the entries IDS; return these events.
Timers run meanwhile, and \\[keyboard-quit] works."
  (dolist (id ids)
    (puthash id (or (plist-get (rs-smtp-queue-list id) :attempts) 0)
             rs-smtpmail--awaited))
  (unwind-protect
      (progn
        (while (not (seq-every-p #'rs-smtpmail--outcome ids))
          (unless (accept-process-output rs-smtpmail--process 1)
            (rs-smtpmail--look-for-outcomes ids))
          ;; Not only by the filter: the pipe might have been closed.
          (rs-smtpmail--wake)
          (rs-smtpmail--handle-events))
        ;; As with smtpmail, the session ends with the mail.
        (rs-smtp--end-idle rs-smtpmail--stop-seconds)
        (mapcar #'rs-smtpmail--outcome ids))
    (dolist (id ids)
      (remhash id rs-smtpmail--awaited))))

(defun rs-smtpmail--outcome (id)
  "Return the outcome of entry ID, which is awaited, or nil so far."
  (let ((value (gethash id rs-smtpmail--awaited)))
    (and (consp value) value)))

(defun rs-smtpmail--look-for-outcomes (ids)
  "Note which of the entries IDS, being awaited, are settled in the spool.
Another Emacs may have sent them, of which we get no event."
  (dolist (id ids)
    (unless (rs-smtpmail--outcome id)
      (let* ((entry (rs-smtp-queue-list id))
             (kind (pcase (plist-get entry :state)
                     ('nil 'sent)
                     ('filing 'sent)
                     ('scheduled nil)
                     ('held 'cancelled)
                     ('pending (and (> (plist-get entry :attempts)
                                       (gethash id rs-smtpmail--awaited))
                                    'deferred))
                     ((or 'sending 'needs-credentials) nil)
                     (settled settled))))
        ;; What we did ourselves is told by an event, which says more.
        (rs-smtpmail--wake)
        (when (and kind
                   (not (seq-some (lambda (event)
                                    (equal id (plist-get (plist-get event :entry)
                                                         :id)))
                                  rs-smtpmail--events)))
          (puthash id (list :event kind :entry (or entry (list :id id)))
                   rs-smtpmail--awaited))))))

(defun rs-smtpmail--put-off-p (event)
  "Whether EVENT is that the server has said to try again, and nothing else."
  (and (eq (plist-get event :event) 'deferred)
       (seq-every-p
        (lambda (recipient)
          (pcase (plist-get recipient :state)
            ('accepted t)
            ('pending (string-match-p "\\`4[0-9][0-9]\\(?:[- \n]\\|\\'\\)"
                                      (or (plist-get recipient :reply) "")))))
        (plist-get (plist-get event :entry) :recipients))))

(defun rs-smtpmail--wait-and-retry (id)
  "Wait for an outcome of entry ID, and return that event.
What the server puts off is tried again, `smtpmail-retries' times in all."
  (let ((event (car (rs-smtpmail--wait (list id))))
        (attempt 1))
    (while (and (< attempt smtpmail-retries) (rs-smtpmail--put-off-p event))
      (message "%s; attempt %d of %d follows..."
               (plist-get event :error) (1+ attempt) smtpmail-retries)
      (sleep-for rs-smtpmail--retry-pause)
      ;; Meanwhile another Emacs may have sent it.
      (ignore-error rs-smtp-no-such-entry
        (rs-smtp-queue-retry id))
      (setq attempt (1+ attempt)
            event (car (rs-smtpmail--wait (list id)))))
    event))

(defun rs-smtpmail--wait-for-one (id)
  "Wait until entry ID has been sent, and signal an error if it can't be."
  (let ((event (condition-case nil
                   (rs-smtpmail--wait-and-retry id)
                 (quit (rs-smtpmail--give-up-waiting id)))))
    (unless (eq (plist-get event :event) 'sent)
      (error "Sending failed: %s" (rs-smtpmail--explanation event)))))

(defun rs-smtpmail--give-up-waiting (id)
  "Stop sending entry ID, tell what becomes of it, and quit."
  (let* ((stopped (ignore-errors (rs-smtp-cancel id)))
         (entry (rs-smtp-queue-list id)))
    (signal 'quit
            (list (cond
                   ((null entry) "The message had been sent already")
                   (stopped
                    (rs-smtpmail--advice (list :event 'cancelled :entry entry)))
                   (t "The server has the message already; its answer is awaited"))))))

;;;; Leaving Emacs

(defun rs-smtpmail--in-flight ()
  "Return the ids of the entries that are being sent or about to be."
  (mapcar
   (lambda (entry) (plist-get entry :id))
   (seq-filter
    (lambda (entry)
      (pcase (plist-get entry :state)
        ('sending t)
        ('scheduled (rs-smtpmail--kept-for-undo-p (plist-get entry :id)))
        ('pending (and (zerop (plist-get entry :attempts))
                       (or rs-smtpmail--resumed
                           (time-less-p before-init-time
                                        (plist-get entry :created)))))))
    (rs-smtp-queue-list))))

(defun rs-smtpmail--kept-for-undo-p (id)
  "Whether entry ID only waits for `rs-smtpmail-undo-delay' to pass."
  (let ((recallable (cdr (assoc id rs-smtpmail--recallable))))
    (and recallable (not (plist-get recallable :time)))))

(defun rs-smtpmail--send-kept (ids)
  "Send those of the entries IDS now that are kept back for a moment."
  (dolist (id ids)
    (when (and (rs-smtpmail--kept-for-undo-p id)
               (eq (plist-get (rs-smtp-queue-list id) :state) 'scheduled))
      (rs-smtp-queue-schedule id nil))))

(defun rs-smtpmail--before-leaving ()
  "Ask what to do about mail in flight; return nil to stay in Emacs.
Where nobody can be asked, Emacs is left.  An error must not keep anybody
in Emacs, either."
  (or noninteractive
      (not (rs-smtpmail--on-screen-p))
      (condition-case err
          (rs-smtpmail--settle-before-leaving)
        (error
         (y-or-n-p (format "What waits to be sent is not known: %s; leave Emacs? "
                           (error-message-string err)))))))

(defun rs-smtpmail--settle-before-leaving ()
  "Ask what to do about mail in flight, and do it; return nil to stay."
  (let ((ids (rs-smtpmail--in-flight)))
    (or (null ids)
        (pcase (car (read-multiple-choice
                     (format "%d message%s being sent"
                             (length ids) (if (cdr ids) "s are" " is"))
                     '((?w "wait" "Leave Emacs when they have been sent")
                       (?l "leave" "Leave Emacs, send them at the next start")
                       (?c "cancel" "Stay in Emacs"))))
          (?w (rs-smtpmail--send-kept ids)
              (let ((unsent (cl-count-if-not
                             (lambda (event) (eq (plist-get event :event) 'sent))
                             (rs-smtpmail--wait ids))))
                (or (zerop unsent)
                    (yes-or-no-p
                     (format "%d could not be sent, and stay in the spool; leave Emacs? "
                             unsent)))))
          (?l t)))))

(provide 'rs-smtpmail-engine)

;;; rs-smtpmail-engine.el ends here
