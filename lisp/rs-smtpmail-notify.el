;;; rs-smtpmail-notify.el --- Tell on the desktop what has become of mail  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Nobody waits for the desktop: it is first asked, without waiting for the
;; answer, whether it shows notifications; who does not answer gets none.

;;; Code:

(require 'rs-smtpmail)

(autoload 'notifications-notify "notifications")
(autoload 'xml-escape-string "xml")

(declare-function dbus-call-method-asynchronously "dbus"
                  (bus service path interface method handler &rest args))
(declare-function rs-smtpmail--summary "rs-smtpmail-engine" (entry &rest states))
(declare-function rs-smtpmail-outbox "rs-smtpmail-outbox" (&optional id))

(defconst rs-smtpmail--notification-length 300
  "How many characters of a reason a notification shows.")

(defun rs-smtpmail--notify-about (event)
  "Tell the desktop of EVENT, an outcome, as `rs-smtpmail-notify' wants it."
  (let ((wanted (pcase (plist-get event :event)
                  ('sent 'sent)
                  ((or 'failed 'needs-user 'unconfirmed) 'failed))))
    (when (and wanted (memq wanted rs-smtpmail-notify))
      (rs-smtpmail--call-with-desktop
       (lambda () (rs-smtpmail--show-notification event))))))

(defun rs-smtpmail--call-with-desktop (function)
  "Call FUNCTION soon, if there is a desktop for notifications."
  (when (and (featurep 'dbusbind) (not noninteractive))
    (ignore-errors
      (require 'dbus)
      (dbus-call-method-asynchronously
       :session "org.freedesktop.Notifications" "/org/freedesktop/Notifications"
       "org.freedesktop.Notifications" "GetServerInformation"
       (lambda (&rest _) (ignore-errors (funcall function)))))))

(defun rs-smtpmail--show-notification (event)
  "Show a desktop notification about EVENT."
  (let* ((entry (plist-get event :entry))
         (kind (plist-get event :event))
         (trouble (and (not (eq kind 'sent))
                       (or (plist-get event :error) (plist-get entry :error)))))
    (notifications-notify
     :title (pcase kind
              ('sent "Mail sent")
              ('unconfirmed "Mail perhaps not sent")
              (_ "Mail not sent"))
     :body (xml-escape-string
            (concat (rs-smtpmail--summary entry)
                    (and trouble "\n")
                    (truncate-string-to-width
                     (or trouble "") rs-smtpmail--notification-length nil nil t)))
     :app-name "Emacs"
     :category (if (eq kind 'sent) "email" "email.error")
     :actions (unless (eq kind 'sent) '("default" "Show it in the outbox"))
     :on-action (lambda (&rest _)
                  (rs-smtpmail-outbox (plist-get entry :id))))))

(provide 'rs-smtpmail-notify)

;;; rs-smtpmail-notify.el ends here
