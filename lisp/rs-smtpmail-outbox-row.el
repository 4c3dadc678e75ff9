;;; rs-smtpmail-outbox-row.el --- How the outbox shows a message  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The columns of the outbox, and the texts in them.

;;; Code:

(require 'tabulated-list)
(require 'rs-smtpmail)
(require 'rs-smtpmail-engine)

;;;; Customization

(defgroup rs-smtpmail-faces nil
  "Faces of the outbox."
  :group 'rs-smtpmail
  :group 'faces)

(defface rs-smtpmail-outbox-sending '((t :inherit success))
  "Face for a message that is being sent.")

(defface rs-smtpmail-outbox-waiting '((t :inherit default))
  "Face for a message that waits for its next try.")

(defface rs-smtpmail-outbox-held '((t :inherit shadow))
  "Face for a message that is held back.")

(defface rs-smtpmail-outbox-attention '((t :inherit warning))
  "Face for a message about which the user is to decide.")

(defface rs-smtpmail-outbox-failed '((t :inherit error))
  "Face for a message that was refused.")

(defface rs-smtpmail-outbox-mark '((t :inherit font-lock-constant-face))
  "Face for the sign of a marked message.")

;;;; Internal variables

(defconst rs-smtpmail--outbox-states
  '((pending "waiting" rs-smtpmail-outbox-waiting)
    (scheduled "scheduled" rs-smtpmail-outbox-waiting)
    (sending "sending" rs-smtpmail-outbox-sending)
    (filing "filing" rs-smtpmail-outbox-sending)
    (held "held" rs-smtpmail-outbox-held)
    (editing "editing" rs-smtpmail-outbox-held)
    (needs-credentials "password?" rs-smtpmail-outbox-attention)
    (needs-user "needs you" rs-smtpmail-outbox-attention)
    (unconfirmed "unconfirmed" rs-smtpmail-outbox-attention)
    (failed "failed" rs-smtpmail-outbox-failed))
  "How the states of messages are shown: a text and a face.")

(defvar rs-smtpmail--edited (make-hash-table :test #'equal)
  "The buffers in which messages in the spool are edited, by id.")

(defvar-local rs-smtpmail--outbox-entries nil
  "Hash table of the entries in the list, by id.")

;;;; Rows

(defun rs-smtpmail--outbox-span (seconds)
  "Return a short text for so many SECONDS."
  (cond ((< seconds 60) "<1m")
        ((< seconds 3600) (format "%dm" (/ seconds 60)))
        ((< seconds 86400) (format "%dh" (/ seconds 3600)))
        (t (format "%dd" (/ seconds 86400)))))

(defun rs-smtpmail--outbox-size (bytes)
  "Return a text of at most four characters for so many BYTES."
  (let ((unit (seq-find (lambda (unit) (< (/ bytes (car unit)) 999.5))
                        '((1.0 . "") (1e3 . "k") (1e6 . "M") (1e9 . "G")))))
    (pcase (/ bytes (car unit))
      ((and number (guard (and (< number 9.95) (> bytes 999))))
       (format "%.1f%s" number (cdr unit)))
      (number (format "%.0f%s" number (cdr unit))))))

(defun rs-smtpmail--outbox-state (entry)
  "Return ENTRY's state as the user sees it."
  (if (and (buffer-live-p (gethash (plist-get entry :id) rs-smtpmail--edited))
           (not (memq (plist-get entry :state)
                      '(pending sending needs-credentials))))
      'editing
    (plist-get entry :state)))

(defun rs-smtpmail--may-be-delivered-p (entry)
  "Whether the server may have the message of ENTRY for some recipient.
Only the user knows whether to send it again, also if it is held."
  (seq-some (lambda (recipient) (eq (plist-get recipient :state) 'unconfirmed))
            (plist-get entry :recipients)))

(defun rs-smtpmail--outbox-state-text (entry)
  "Return a text for ENTRY's state, with progress."
  (pcase-let* ((state (rs-smtpmail--outbox-state entry))
               (`(,text ,face) (alist-get state rs-smtpmail--outbox-states))
               (`(,sent . ,total)
                (gethash (plist-get entry :id) rs-smtpmail--progress)))
    (propertize (if (and sent (eq state 'sending))
                    (format "%s %d%%" text (min 99 (/ (* 100 sent) (max 1 total))))
                  text)
                'face face)))

(defun rs-smtpmail--outbox-next (entry now)
  "Return a text for when ENTRY is tried next, seen from the time NOW."
  (let ((time (pcase (plist-get entry :state)
                ('pending (or (plist-get entry :next-try) now))
                ('scheduled (plist-get entry :not-before)))))
    (cond ((null time) "")
          ((<= time now) "now")
          ((eq (plist-get entry :state) 'pending)
           (rs-smtpmail--outbox-span (- time now)))
          ((< (- time now) 86400) (format-time-string "%R" time))
          ((< (- time now) (* 300 86400)) (format-time-string "%m-%d" time))
          (t (format-time-string "%Y" time)))))

(defun rs-smtpmail--outbox-reply (entry)
  "Return the last reply to ENTRY on one line, or the last trouble.
There is little room: what other columns show, and the server, is left out."
  (let* ((recipient (seq-find (lambda (recipient)
                                (and (plist-get recipient :reply)
                                     (not (eq (plist-get recipient :state) 'accepted))))
                              (plist-get entry :recipients)))
         (server (plist-get entry :server)))
    (replace-regexp-in-string
     "[[:cntrl:]]+" " "
     (string-remove-prefix
      (format "%s:%s, " (plist-get server :host) (plist-get server :port))
      (if recipient
          (string-replace (format "<%s>: " (plist-get recipient :address)) ""
                          (plist-get recipient :reply))
        (or (plist-get entry :error) ""))))))

(defun rs-smtpmail--outbox-row (entry now)
  "Return the columns for ENTRY at the time NOW."
  (vector
   (rs-smtpmail--outbox-state-text entry)
   (rs-smtpmail--outbox-span (- now (plist-get entry :created)))
   (rs-smtpmail--addresses entry)
   (rs-smtpmail--decoded-subject entry)
   (rs-smtpmail--outbox-size (plist-get entry :size))
   (number-to-string (plist-get entry :attempts))
   (rs-smtpmail--outbox-next entry now)
   (propertize (rs-smtpmail--outbox-reply entry)
               'help-echo #'rs-smtpmail--outbox-help-echo)))

(defun rs-smtpmail--outbox-rows ()
  "Return the rows of all entries, oldest first.
This is a value for the variable `tabulated-list-entries'."
  (let ((now (float-time))
        rows)
    (maphash (lambda (id entry)
               (push (list id (rs-smtpmail--outbox-row entry now)) rows))
             rs-smtpmail--outbox-entries)
    ;; Ids grow with time.
    (sort rows (lambda (a b) (string< (car a) (car b))))))

(defun rs-smtpmail--outbox-by (function)
  "Return a predicate for the order of rows by FUNCTION of their entries."
  (lambda (a b)
    (< (or (funcall function (gethash (car a) rs-smtpmail--outbox-entries)) 0)
       (or (funcall function (gethash (car b) rs-smtpmail--outbox-entries)) 0))))

(defun rs-smtpmail--outbox-by-key (key)
  "Return a predicate for the order of rows by KEY of their entries."
  (rs-smtpmail--outbox-by (lambda (entry) (plist-get entry key))))

(defun rs-smtpmail--outbox-format (width)
  "Return the columns of a list that is WIDTH characters wide."
  (let* (;; What the columns of fixed width leave for the others.
         (rest (max 40 (- width 36)))
         (to (/ (* rest 31) 100))
         (subject (/ (* rest 35) 100)))
    `[("State" 11 t)
      ("Age" 4 ,(rs-smtpmail--outbox-by (lambda (entry)
                                         (- (plist-get entry :created))))
       :right-align t)
      ("To" ,to t)
      ("Subject" ,subject t)
      ("Size" 4 ,(rs-smtpmail--outbox-by-key :size) :right-align t)
      ("Try" 3 ,(rs-smtpmail--outbox-by-key :attempts) :right-align t)
      ("Next" 5 ,(rs-smtpmail--outbox-by
                  (lambda (entry)
                    (or (plist-get entry :not-before) (plist-get entry :next-try))))
       :right-align t)
      ("Last reply" 0 t)]))

(defun rs-smtpmail--outbox-replies (entry)
  "Return all that is known about the troubles of ENTRY, or nil."
  (let ((trouble (plist-get entry :error))
        lines)
    (dolist (recipient (plist-get entry :recipients))
      (let ((reply (plist-get recipient :reply)))
        (unless (or (null reply)
                    (and trouble (string-search reply trouble)))
          (push (format "%s: %s" (plist-get recipient :address) reply) lines))))
    (when (or trouble lines)
      (string-join (delq nil (cons trouble (nreverse lines))) "\n"))))

(defun rs-smtpmail--outbox-help-echo (_window buffer position)
  "Return all replies to the entry at POSITION in BUFFER."
  (with-current-buffer buffer
    (when-let ((entry (gethash (tabulated-list-get-id position)
                               rs-smtpmail--outbox-entries)))
      (rs-smtpmail--outbox-replies entry))))

(defun rs-smtpmail--outbox-eldoc (&rest _)
  "Return all replies to the entry at point, for Eldoc."
  (rs-smtpmail--outbox-help-echo nil (current-buffer) (point)))

(provide 'rs-smtpmail-outbox-row)

;;; rs-smtpmail-outbox-row.el ends here
