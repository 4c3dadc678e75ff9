;;; demo.el --- Send one mail through the module and show it  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; `make demo': a bundled SMTP server on a loopback port, with STARTTLS and a
;; password; one mail from Message mode; what arrived, and for how long Emacs
;; was busy with it.  Everything is in a temporary directory.

;;; Code:

(load (expand-file-name "sink" (file-name-directory load-file-name)) nil t)
(require 'auth-source)
(require 'gnutls)
(require 'rs-smtpmail)
(require 'message)
(require 'smtpmail)

(let* ((directory (file-name-as-directory (make-temp-file "rs-smtpmail-demo" t)))
       (mailbox (expand-file-name "mailbox" directory))
       (ca (expand-file-name "ca.pem" directory))
       (authinfo (expand-file-name "authinfo" directory))
       (server (sink-start "--tls" "starttls" "--dir" mailbox "--ca" ca
                           "--require-auth" "--auth" "demo:secret"))
       (user-mail-address "me@example.org")
       (user-full-name "A. U. Thor")
       (send-mail-function #'rs-smtpmail-send-it)
       (message-send-mail-function #'rs-smtpmail-send-it)
       (smtpmail-smtp-server "localhost")
       (smtpmail-smtp-service (sink-port server))
       (smtpmail-stream-type 'starttls)
       (smtpmail-local-domain nil)
       (auth-sources (list authinfo))
       (gnutls-trustfiles (list ca))
       (rs-smtpmail-spool-directory (expand-file-name "spool" directory))
       ;; Batch Emacs would wait for the outcome; the demo shows that it need not.
       (rs-smtpmail-synchronous nil)
       (outcome nil)
       (rs-smtpmail-sent-functions (list (lambda (entry) (setq outcome entry))))
       (rs-smtpmail-failed-functions
        (list (lambda (entry) (error "Not sent: %s" (plist-get entry :error)))))
       (received (expand-file-name "0001.eml" mailbox)))
  (unwind-protect
      (progn
        (with-temp-file authinfo
          (insert (format "machine localhost port %d login demo password secret\n"
                          (sink-port server))))
        (rs-smtp-queue-list)            ; maps the module, as a first mail would
        (let ((handing-over 0)
              blocked)
          (advice-add 'rs-smtpmail-send-it :around
                      (lambda (send)
                        (let ((start (float-time)))
                          (funcall send)
                          (setq handing-over (- (float-time) start)))))
          (with-temp-buffer
            (message-mode)
            (message-setup '((To . "Jürgen <you@example.com>")
                             (Bcc . "archive@example.com")
                             (Subject . "Grüße aus Emacs")))
            (message-goto-body)
            (insert "Emacs did not wait for this.\n.\n(That was a lone dot.)\n")
            (let ((message-confirm-send nil)
                  (message-kill-buffer-on-exit nil)
                  (start (float-time)))
              (message-send)
              (setq blocked (- (float-time) start))))
          (sink-wait "the server's answer" (lambda () outcome))
          (message "--- received by the server, for %s:"
                   (mapconcat (lambda (recipient) (plist-get recipient :address))
                              (plist-get outcome :recipients) ", "))
          (message "%s" (sink-contents received))
          (message "--- Emacs was busy for %.1f ms: %.1f ms while Message mode \
composed the mail,\n    %.1f ms until it was safe on disk.  Delivery \
(connection, STARTTLS, AUTH,\n    content) went on in the background."
                   (* 1000 blocked)
                   (* 1000 (- blocked handing-over))
                   (* 1000 handing-over))))
    (delete-process server)
    (delete-directory directory t)))

;;; demo.el ends here
