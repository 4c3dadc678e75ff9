;;; rs-smtpmail-mode-line.el --- Count unsent mail in the mode line  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; To count costs little, however full the spool is: the state of each message
;; is remembered from the events, the spool's directory is only read when it has
;; changed, and a message only when nothing is known of it yet.  Without events,
;; as of other Emacs processes, the directory is looked at now and then.

;;; Code:

(require 'rs-smtpmail)
(eval-when-compile (require 'cl-lib))

(defvar rs-smtpmail--event-functions)

(declare-function rs-smtpmail-outbox "rs-smtpmail-outbox" (&optional id))

;;;; Internal variables

(defvar rs-smtpmail-mode-line-mode)

(defvar rs-smtpmail--mode-line ""
  "What `rs-smtpmail-mode-line-mode' shows.")
;; Else the mode line would show neither its faces nor its keymap.
(put 'rs-smtpmail--mode-line 'risky-local-variable t)

(defconst rs-smtpmail--mode-line-construct
  '(rs-smtpmail-mode-line-mode rs-smtpmail--mode-line)
  "What `rs-smtpmail-mode-line-mode' adds to `mode-line-misc-info'.")

(defvar rs-smtpmail--mode-line-timer nil
  "Timer of the next look at the spool.")

(defconst rs-smtpmail--mode-line-seconds 10
  "How often to look for what no event has told.")

(defconst rs-smtpmail--fresh-seconds 3
  "For how long a new message is not counted, since it may be sent at once.")

(defvar rs-smtpmail--states (make-hash-table :test #'equal)
  "The states of messages in the spool, as far as known, by id.")

(defvar rs-smtpmail--ids nil
  "Ids of the messages in the spool, as `rs-smtpmail--spool-ids' wants them.")

(defvar rs-smtpmail--mode-line-map
  (let ((map (make-sparse-keymap)))
    (define-key map [mode-line mouse-1] #'rs-smtpmail-outbox)
    map)
  "Keymap of the count in the mode line.")

;;;; What is in the spool

(defun rs-smtpmail--spool-ids (previous)
  "Return the ids of the messages in the spool, with the time of that.
PREVIOUS is the last value, or nil; if nothing can have changed since, it is
returned.  The value is a cons cell of the time and the ids."
  (let* ((queue (expand-file-name "queue" rs-smtpmail-spool-directory))
         (attributes (file-attributes queue))
         (changed (and attributes
                       (file-attribute-modification-time attributes))))
    (cond
     ((null attributes) (list 0))
     ((and previous (equal changed (car previous))) previous)
     ;; While it is new, there may be another change with the same time.
     (t (cons (and (time-less-p changed (time-subtract nil 2)) changed)
              (directory-files queue nil "\\`[^.]" t))))))

(defun rs-smtpmail--count-states (states)
  "Return how many of STATES, a list, wait, and how many need the user."
  (let ((waiting 0)
        (failed 0))
    (dolist (state states)
      (if (memq state '(failed unconfirmed needs-user))
          (cl-incf failed)
        (cl-incf waiting)))
    (cons waiting failed)))

(defun rs-smtpmail--count-text (counts)
  "Return COUNTS, a value of `rs-smtpmail--count-states', in words."
  (pcase-let ((`(,waiting . ,failed) counts))
    (concat (format "%d waiting" waiting)
            (unless (zerop failed)
              (format ", %d failed" failed)))))

;;;; Counting

(defun rs-smtpmail--learn-states (ids)
  "Ask for the states of the messages IDS; return whether some are fresh."
  (let ((now (float-time))
        fresh)
    (dolist (entry (if (length> ids 100)
                       (rs-smtp-queue-list)
                     (delq nil (mapcar #'rs-smtp-queue-list ids)))
                   fresh)
      (let ((state (plist-get entry :state)))
        (if (and (memq state '(pending sending))
                 (< (- now (plist-get entry :created)) rs-smtpmail--fresh-seconds))
            (setq fresh t)
          (puthash (plist-get entry :id) state rs-smtpmail--states))))))

(defun rs-smtpmail--known-states ()
  "Return the states of the messages in the spool that are to be counted.
Without the module they are `unknown'."
  (let* ((ids (cdr (setq rs-smtpmail--ids
                         (rs-smtpmail--spool-ids rs-smtpmail--ids))))
         (known (lambda (id) (gethash id rs-smtpmail--states))))
    (if (not (featurep 'rs-smtpmail-module))
        (mapcar (lambda (_) 'unknown) ids)
      (when (> (hash-table-count rs-smtpmail--states) (length ids))
        (let ((current (make-hash-table :test #'equal)))
          (dolist (id ids)
            (when-let ((state (funcall known id)))
              (puthash id state current)))
          (setq rs-smtpmail--states current)))
      (when-let ((unknown (seq-remove known ids)))
        (when (rs-smtpmail--learn-states unknown)
          (rs-smtpmail--update-mode-line-in rs-smtpmail--fresh-seconds)))
      (delq nil (mapcar known ids)))))

(defun rs-smtpmail--note-state (event)
  "Learn from EVENT about the state of a message."
  (let* ((kind (plist-get event :event))
         (entry (plist-get event :entry))
         (id (plist-get entry :id)))
    (cond
     ((eq kind 'changed)
      (if-let* ((changed (plist-get event :id)))
          (remhash changed rs-smtpmail--states)
        ;; Another Emacs may have changed any of them.
        (clrhash rs-smtpmail--states))
      (rs-smtpmail--update-mode-line-in rs-smtpmail--fresh-seconds))
     (entry
      (if (or (memq kind '(sent filed)) (plist-get event :removed))
          (remhash id rs-smtpmail--states)
        (puthash id (plist-get entry :state) rs-smtpmail--states))
      (rs-smtpmail--update-mode-line-in 0.3)))))

;;;; Showing

(defun rs-smtpmail--mode-line-text (counts)
  "Return the mode line's text for COUNTS."
  (pcase-let ((`(,waiting . ,failed) counts))
    (if (= 0 waiting failed)
        ""
      (concat " "
              (propertize
               (concat "Outbox:"
                       (unless (zerop waiting)
                         (number-to-string waiting))
                       (unless (zerop failed)
                         (propertize (format "!%d" failed) 'face 'error)))
               'help-echo (format "Mail: %s\nmouse-1: show the outbox"
                                  (rs-smtpmail--count-text counts))
               'mouse-face 'mode-line-highlight
               'local-map rs-smtpmail--mode-line-map)
              " "))))

(defun rs-smtpmail--update-mode-line ()
  "Bring the mode line up to date."
  (rs-smtpmail--update-mode-line-in rs-smtpmail--mode-line-seconds t)
  (let ((text (rs-smtpmail--mode-line-text
               (rs-smtpmail--count-states
                ;; What is wrong with the spool is told where it matters.
                (ignore-error (rs-smtp-error file-error)
                  (rs-smtpmail--known-states))))))
    (unless (equal-including-properties text rs-smtpmail--mode-line)
      (setq rs-smtpmail--mode-line text)
      (force-mode-line-update t))))

(defun rs-smtpmail--update-mode-line-in (seconds &optional again)
  "Bring the mode line up to date in SECONDS, or earlier.
AGAIN non-nil means that nothing is to come earlier."
  (when rs-smtpmail-mode-line-mode
    (let ((timer rs-smtpmail--mode-line-timer))
      (when (or again
                (time-less-p (time-add nil seconds) (timer--time timer)))
        (cancel-timer timer)
        (setq rs-smtpmail--mode-line-timer
              (run-at-time seconds nil #'rs-smtpmail--update-mode-line))))))

;;;###autoload
(define-minor-mode rs-smtpmail-mode-line-mode
  "Count in the mode line the mail that has not been sent.
The number after \"Outbox:\" is that of messages that wait, are being sent
or are held; that after the exclamation mark is that of messages that were
refused or need you.  If there are none, nothing is shown.  A click shows
the outbox.  See also `rs-smtpmail-mode-line'."
  :global t
  :group 'rs-smtpmail
  (when rs-smtpmail--mode-line-timer
    (cancel-timer rs-smtpmail--mode-line-timer)
    (setq rs-smtpmail--mode-line-timer nil))
  (setq mode-line-misc-info (remove rs-smtpmail--mode-line-construct
                                    mode-line-misc-info))
  (cond
   (rs-smtpmail-mode-line-mode
    (setq mode-line-misc-info (append mode-line-misc-info
                                      (list rs-smtpmail--mode-line-construct))
          rs-smtpmail--mode-line-timer
          (run-at-time 0 nil #'rs-smtpmail--update-mode-line))
    (add-hook 'rs-smtpmail--event-functions #'rs-smtpmail--note-state))
   (t
    (remove-hook 'rs-smtpmail--event-functions #'rs-smtpmail--note-state)
    (clrhash rs-smtpmail--states)
    (setq rs-smtpmail--mode-line ""
          rs-smtpmail--ids nil)))
  (force-mode-line-update t))

(provide 'rs-smtpmail-mode-line)

;;; rs-smtpmail-mode-line.el ends here
