;;; rs-smtpmail-outbox-commands.el --- Handle what has not been sent  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The commands of `rs-smtpmail-outbox-mode' that mark messages, and that act on
;; those marked.

;;; Code:

(require 'rs-smtpmail-outbox)
(eval-when-compile (require 'cl-lib))

(declare-function rs-smtpmail--count-waiting "rs-smtpmail-queue")

;;;; Marks

(defun rs-smtpmail--outbox-id ()
  "Return the id of the message on this line."
  (or (tabulated-list-get-id)
      (user-error "There is no message on this line")))

(defun rs-smtpmail--outbox-targets ()
  "Return the ids of the marked messages, or else of that on this line."
  (or (sort (hash-table-keys rs-smtpmail--outbox-marks) #'string<)
      (list (rs-smtpmail--outbox-id))))

(defun rs-smtpmail--outbox-set-mark (mark)
  "Mark the message on this line if MARK is non-nil, else unmark it."
  (let ((id (rs-smtpmail--outbox-id)))
    (if mark
        (puthash id t rs-smtpmail--outbox-marks)
      (remhash id rs-smtpmail--outbox-marks))
    (rs-smtpmail--outbox-show-mark mark)))

(defun rs-smtpmail--outbox-mark-lines (count mark)
  "Mark COUNT messages from this line on if MARK is non-nil, else unmark them."
  (while (> count 0)
    (rs-smtpmail--outbox-set-mark mark)
    (forward-line 1)
    (setq count (if (tabulated-list-get-id) (1- count) 0))))

(defun rs-smtpmail-outbox-mark (count)
  "Mark this message, or COUNT of them, for commands that act on several."
  (interactive "p" rs-smtpmail-outbox-mode)
  (rs-smtpmail--outbox-mark-lines count t))

(defun rs-smtpmail-outbox-unmark (count)
  "Unmark this message, or COUNT of them."
  (interactive "p" rs-smtpmail-outbox-mode)
  (rs-smtpmail--outbox-mark-lines count nil))

(defun rs-smtpmail-outbox-unmark-all ()
  "Unmark all messages."
  (interactive nil rs-smtpmail-outbox-mode)
  (clrhash rs-smtpmail--outbox-marks)
  (tabulated-list-clear-all-tags))

(defun rs-smtpmail-outbox-toggle-marks ()
  "Mark what is not marked, and unmark what is."
  (interactive nil rs-smtpmail-outbox-mode)
  (save-excursion
    (goto-char (point-min))
    (while (tabulated-list-get-id)
      (rs-smtpmail--outbox-set-mark
       (not (gethash (tabulated-list-get-id) rs-smtpmail--outbox-marks)))
      (forward-line 1))))

;;;; Commands on messages

(defun rs-smtpmail--outbox-entry (id)
  "Return entry ID as it is in the spool now."
  (or (rs-smtp-queue-list id)
      (user-error "This message is not in the outbox any more")))

(defun rs-smtpmail--outbox-in-state (ids &rest states)
  "Return those of IDS whose entries are in one of STATES, as the user sees them."
  (seq-filter (lambda (id)
                (when-let ((entry (rs-smtp-queue-list id)))
                  (memq (rs-smtpmail--outbox-state entry) states)))
              ids))

(defun rs-smtpmail--outbox-each (ids function done)
  "Call FUNCTION with each of IDS; say with DONE, a format, for how many.
What goes wrong with one of them does not stop the others."
  (let ((count 0)
        problems)
    (dolist (id ids)
      (condition-case err
          (progn (funcall function id)
                 (cl-incf count))
        ;; It has been sent, or deleted, meanwhile.
        (rs-smtp-no-such-entry nil)
        (rs-smtp-error (push (error-message-string err) problems)))
      (rs-smtpmail--changed id))
    (rs-smtpmail--outbox-follow)
    (if problems
        (user-error "%s" (string-join (nreverse (delete-dups problems)) "\n"))
      (message done count))))

(defun rs-smtpmail--in-doubt (ids)
  "Return those of IDS whose messages the server may have, and that are edited.
The value is a cons of two lists."
  (cons (seq-filter (lambda (id)
                      (rs-smtpmail--may-be-delivered-p (rs-smtp-queue-list id)))
                    ids)
        (rs-smtpmail--outbox-in-state ids 'editing)))

(defun rs-smtpmail--confirm-sending (ids)
  "Return those of the messages IDS that the user wants sent now.
Ask if the server may have some of them already, or if some are edited."
  (pcase-let ((`(,unsure . ,edited) (rs-smtpmail--in-doubt ids)))
    (when (and (or (null unsure)
                   (yes-or-no-p
                    (if (cdr ids)
                        (format "The server may have %d of them; send again? "
                                (length unsure))
                      "The server may have it already; send it again? ")))
               (or (null edited)
                   (yes-or-no-p
                    (if (cdr ids)
                        (format "You edit %d of them; send as they were? "
                                (length edited))
                      "You edit this message; send it as it was? "))))
      ;; While we asked, others may have come into doubt.
      (pcase-let ((`(,unsure-now . ,edited-now) (rs-smtpmail--in-doubt ids)))
        (seq-difference ids (append (seq-difference unsure-now unsure)
                                    (seq-difference edited-now edited)))))))

(defun rs-smtpmail-outbox-send ()
  "Send these messages now, whatever has become of them before."
  (interactive nil rs-smtpmail-outbox-mode)
  (when-let* ((ids (rs-smtpmail--confirm-sending (rs-smtpmail--outbox-targets))))
    (rs-smtpmail--outbox-each ids #'rs-smtp-queue-retry "Sending %d now")))

(defun rs-smtpmail-outbox-send-all ()
  "Send all that waits, here and in smtpmail's queue, now, after asking.
What waits for a time of your choice goes on waiting."
  (interactive nil rs-smtpmail-outbox-mode)
  (require 'rs-smtpmail-queue)
  (let ((count (rs-smtpmail--count-waiting))
        (rs-smtpmail-synchronous nil))
    (when (or (zerop count)
              (yes-or-no-p (format (ngettext "Send %d waiting message now? "
                                             "Send all %d waiting messages now? "
                                             count)
                                   count)))
      (rs-smtpmail-send-queued-mail)
      (rs-smtpmail--outbox-list))))

(defun rs-smtpmail-outbox-hold ()
  "Hold these messages back, or release them if they all are held."
  (interactive nil rs-smtpmail-outbox-mode)
  (let* ((ids (rs-smtpmail--outbox-targets))
         (waiting (rs-smtpmail--outbox-in-state
                   ids 'pending 'scheduled 'sending 'needs-credentials 'needs-user))
         (held (rs-smtpmail--outbox-in-state ids 'held)))
    (cond
     (waiting (rs-smtpmail--outbox-each
               waiting (lambda (id) (rs-smtp-queue-hold id t)) "%d held"))
     (held (rs-smtpmail--outbox-each
            held (lambda (id) (rs-smtp-queue-hold id nil)) "%d released"))
     (t (user-error "Only what is going to be sent can be held")))))

(defun rs-smtpmail-outbox-delete ()
  "Delete these messages, after asking."
  (interactive nil rs-smtpmail-outbox-mode)
  (let ((ids (rs-smtpmail--outbox-targets)))
    (when (yes-or-no-p
           (if (cdr ids)
               (format "Delete these %d messages for good? " (length ids))
             (format "Delete the message to %s for good? "
                     (rs-smtpmail--summary (rs-smtpmail--outbox-entry (car ids))))))
      (rs-smtpmail--outbox-each ids #'rs-smtp-queue-remove "%d deleted"))))

(defun rs-smtpmail-outbox-copy-reply ()
  "Copy the replies to these messages, as the server sent them."
  (interactive nil rs-smtpmail-outbox-mode)
  (let ((texts (delq nil (mapcar (lambda (id)
                                   (rs-smtpmail--outbox-replies
                                    (rs-smtpmail--outbox-entry id)))
                                 (rs-smtpmail--outbox-targets)))))
    (unless texts
      (user-error "There is no reply yet"))
    (kill-new (string-join texts "\n"))
    (message "%s" (current-kill 0 t))))

(provide 'rs-smtpmail-outbox-commands)

;;; rs-smtpmail-outbox-commands.el ends here
