;;; demo.el --- Send two mails through the module and show one  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; `make demo': a bundled SMTP server on a loopback port, with STARTTLS and a
;; password; two mails from Message mode; what arrived, and for how long Emacs
;; was busy with each.  Everything is in a temporary directory.

;;; Code:

(load (expand-file-name "sink" (file-name-directory load-file-name)) nil t)
(require 'auth-source)
(require 'gnutls)
(require 'message)
(require 'smtpmail)

(defun demo-compile (directory)
  "Byte-compile the package into DIRECTORY and load it from there.
That is what a user has; uncompiled, all would be slower."
  (let ((byte-compile-dest-file-function
         (lambda (file)
           (expand-file-name (concat (file-name-nondirectory file) "c") directory)))
        (inhibit-message t))
    (dolist (file (directory-files (expand-file-name "lisp" sink-root) t "\\.el\\'"))
      (byte-compile-file file)))
  (push directory load-path)
  (require 'rs-smtpmail))

(defvar demo-handing-over 0 "Seconds that the last `rs-smtpmail-send-it' took.")

(defun demo-measure (send)
  "Call SEND, which is `rs-smtpmail-send-it', and see how long that takes."
  (let ((start (float-time)))
    (funcall send)
    (setq demo-handing-over (- (float-time) start))))

(defun demo-send (subject)
  "Send a mail with SUBJECT from Message mode.
Return the milliseconds for which Emacs was busy: those of Message mode, and
those of this package."
  (with-temp-buffer
    (message-mode)
    (message-setup `((To . "Jürgen <you@example.com>")
                     (Bcc . "archive@example.com")
                     (Subject . ,subject)))
    (message-goto-body)
    (insert "Emacs did not wait for this.\n.\n(That was a lone dot.)\n")
    (let ((message-confirm-send nil)
          (message-kill-buffer-on-exit nil)
          (inhibit-message t)
          (start (float-time)))
      (message-send)
      (mapcar (lambda (seconds) (* 1000 seconds))
              (list (- (float-time) start demo-handing-over) demo-handing-over)))))

(let* ((directory (file-name-as-directory (make-temp-file "rs-smtpmail-demo" t)))
       (mailbox (expand-file-name "mailbox" directory))
       (ca (expand-file-name "ca.pem" directory))
       (authinfo (expand-file-name "authinfo" directory))
       (server (sink-start "--tls" "starttls" "--dir" mailbox "--ca" ca
                           "--require-auth" "--auth" "demo:secret"))
       (user-mail-address "me@example.org")
       (user-full-name "A. U. Thor")
       (send-mail-function 'rs-smtpmail-send-it)
       (message-send-mail-function 'rs-smtpmail-send-it)
       (smtpmail-smtp-server "localhost")
       (smtpmail-smtp-service (sink-port server))
       (smtpmail-stream-type 'starttls)
       (smtpmail-local-domain nil)
       (auth-sources (list authinfo))
       (gnutls-trustfiles (list ca))
       (outcome nil)
       (received (expand-file-name "0001.eml" mailbox)))
  (unwind-protect
      (progn
        (with-temp-file authinfo
          (insert (format "machine localhost port %d login demo password secret\n"
                          (sink-port server))))
        (demo-compile directory)
        ;; Batch Emacs would wait for the outcome; the demo shows that it need not.
        (setq rs-smtpmail-synchronous nil
              rs-smtpmail-spool-directory (expand-file-name "spool" directory)
              rs-smtpmail-sent-functions
              (list (lambda (entry) (setq outcome entry)))
              rs-smtpmail-failed-functions
              (list (lambda (entry) (error "Not sent: %s" (plist-get entry :error)))))
        (advice-add 'rs-smtpmail-send-it :around #'demo-measure)
        (pcase-let*
            ((`(,first-message ,first-ours) (demo-send "Grüße aus Emacs"))
             (sent (sink-wait "the server's answer" (lambda () outcome)))
             (`(,message ,ours) (progn (setq outcome nil) (demo-send "And again"))))
          (sink-wait "the server's second answer" (lambda () outcome))
          (message "--- received by the server, for %s:"
                   (mapconcat (lambda (recipient) (plist-get recipient :address))
                              (plist-get sent :recipients) ", "))
          (message "%s" (sink-contents received))
          (message "--- Emacs was busy with the first mail for %.1f ms: %.1f ms in Message mode,
    which loaded what it needs and composed it; %.1f ms in this package, until
    its module was loaded and the mail was safe on disk.
    With the second mail it was busy for %.1f ms: %.1f ms in Message mode,
    %.1f ms in this package.
    Delivery (connection, STARTTLS, AUTH, content) went on in the background."
                   (+ first-message first-ours) first-message first-ours
                   (+ message ours) message ours)))
    (delete-process server)
    (delete-directory directory t)))

;;; demo.el ends here
