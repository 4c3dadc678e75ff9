;;; rs-smtpmail-watch.el --- See what the engine does  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The dialogue with a server, how far a large message has got, and a check of
;; a server, step by step.

;;; Code:

(require 'rs-smtpmail)

(declare-function rs-smtp-check-server "ext:rs-smtpmail-module" (server) t)
(declare-function rs-smtpmail--server-here "rs-smtpmail-accounts")

;;;; Internal variables

(defvar rs-smtpmail--progress (make-hash-table :test #'equal)
  "By entry id, the octets sent so far and those in all, a cons cell.")

(defvar rs-smtpmail--checks nil
  "Alist from the number of a check under way to its buffer.")

;;;; Dialogue and progress

(defun rs-smtpmail--show-trace (event)
  "Add the lines of EVENT to the trace of the session they are from."
  (with-current-buffer
      (get-buffer-create (format "*trace of SMTP session to %s*"
                                 (plist-get event :host)))
    (save-excursion
      (goto-char (point-max))
      (insert (plist-get event :text)))))

(defun rs-smtpmail--show-progress (event)
  "Show in the echo area how far the message of EVENT has got."
  (let ((sent (plist-get event :sent))
        (total (plist-get event :total)))
    (puthash (plist-get event :id) (cons sent total) rs-smtpmail--progress)
    (unless (or (active-minibuffer-window) (current-message))
      (let (message-log-max)
        (message "Sending mail: %d%% of %s" (/ (* 100 sent) (max 1 total))
                 (file-size-human-readable total 'si " " "B"))))))

(defun rs-smtpmail--forget-progress (id)
  "Forget how far entry ID had got."
  (remhash id rs-smtpmail--progress))

;;;; Checking a server

(defun rs-smtpmail--show-check (event)
  "Show EVENT, a step of a check."
  (let* ((number (plist-get event :request))
         (buffer (alist-get number rs-smtpmail--checks)))
    (when (plist-get event :last)
      (setf (alist-get number rs-smtpmail--checks nil t) nil))
    (when (buffer-live-p buffer)
      (with-current-buffer buffer
        (let ((inhibit-read-only t))
          (goto-char (point-max))
          (insert (propertize (if (plist-get event :ok) "ok      " "FAILED  ")
                              'face (if (plist-get event :ok) 'success 'error))
                  (plist-get event :step) ": "
                  ;; Further lines of a reply stand under the first.
                  (replace-regexp-in-string "\n" "\n          "
                                            (plist-get event :text))
                  "\n"))))))

;;;###autoload
(defun rs-smtpmail-check-server (server)
  "Check whether mail could be sent to SERVER, and show each step.
SERVER is a property list as for `rs-smtp-send'; interactively, the one
that would get a mail sent from this buffer.  The check looks the host up,
connects, starts TLS, greets and, if a password is stored, logs in.  It
sends nothing."
  (interactive
   (progn
     (require 'rs-smtpmail-accounts)
     (list (rs-smtpmail--server-here))))
  (unless (plist-get server :host)
    (user-error "No server; set `smtpmail-smtp-server'"))
  (let* ((number (rs-smtp-check-server server))
         (name (format "%s:%s" (plist-get server :host)
                       (or (plist-get server :port) "smtp")))
         (buffer (get-buffer-create (format "*check of %s*" name))))
    (push (cons number buffer) rs-smtpmail--checks)
    (with-current-buffer buffer
      (special-mode)
      (let ((inhibit-read-only t))
        (erase-buffer)
        (insert "Checking " name "\n\n")))
    (display-buffer buffer)
    buffer))

;;;; Notifications asked of the server

;;;###autoload
(defun rs-smtpmail-request-dsn ()
  "Ask for a notification when the mail in this buffer has been delivered.
See `rs-smtpmail-dsn', of which this sets a value local to the buffer."
  (interactive)
  (setq-local rs-smtpmail-dsn '(:ret hdrs :notify (success failure delay)))
  (message "The server will be asked to notify you"))

(provide 'rs-smtpmail-watch)

;;; rs-smtpmail-watch.el ends here
