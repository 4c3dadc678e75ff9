;;; rs-smtpmail-accounts.el --- The server that a mail's sender chooses  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; See `rs-smtpmail-accounts'.  The account is looked for in the buffer of the
;; mail, but whether it is used is decided when the mail is handed over, when
;; everybody who might choose another server has had the opportunity.

;;; Code:

(require 'smtpmail)
(require 'rs-smtpmail)
(require 'rs-smtpmail-message)
(eval-when-compile (require 'cl-lib))

;;;; Internal variables

(defconst rs-smtpmail--account-server
  '((:server . smtpmail-smtp-server)
    (:port . smtpmail-smtp-service)
    (:stream-type . smtpmail-stream-type)
    (:user . smtpmail-smtp-user))
  "Settings of an account that choose a server, and the options for them.")

(defconst rs-smtpmail--account-options
  `(,@rs-smtpmail--account-server
    (:local-domain . smtpmail-local-domain))
  "Settings of an account that stand for options, and these options.")

(defconst rs-smtpmail--account-settings
  `(,@(mapcar #'car rs-smtpmail--account-options) :ehlo :envelope-from)
  "All settings of an account.")

;;;; Looking for the account

(defun rs-smtpmail--account-of-mail ()
  "Return the account of the mail in this buffer, or nil if it has none."
  (and rs-smtpmail-accounts
       (rs-smtpmail--account-of (or (rs-smtpmail--header-sender)
                                    user-mail-address
                                    ""))))

(defun rs-smtpmail--account-of (address)
  "Return the account for mail from ADDRESS in this buffer, or nil."
  (pcase-let ((`(,key . ,account)
               (seq-find (lambda (entry)
                           (rs-smtpmail--account-key-fits-p (car entry) address))
                         rs-smtpmail-accounts)))
    (cl-loop for setting in account by #'cddr
             unless (memq setting rs-smtpmail--account-settings)
             do (user-error "The account %S of `rs-smtpmail-accounts' has a \
setting that does not exist: %S"
                            key setting))
    account))

(defun rs-smtpmail--account-key-fits-p (key address)
  "Whether KEY of `rs-smtpmail-accounts' fits ADDRESS or this buffer."
  (cond ((functionp key) (save-excursion (funcall key)))
        ((string-prefix-p "*@" key) (string-suffix-p (substring key 1) address t))
        (t (rs-smtpmail--same-address-p key address))))

(defun rs-smtpmail--same-address-p (one other)
  "Whether the addresses ONE and OTHER are the same, but for their case."
  (eq t (compare-strings one nil nil other nil nil t)))

;;;; Using the account

(defun rs-smtpmail--server-chosen-p ()
  "Whether a binding of an option chooses the server for the mail at hand."
  (cl-loop for (_ . option) in rs-smtpmail--account-server
           thereis (or (local-variable-p option)
                       (not (eq (symbol-value option)
                                (default-toplevel-value option))))))

(defun rs-smtpmail--account-agrees-p (account)
  "Whether the server chosen by the options is the one of ACCOUNT."
  (cl-loop for (setting . option) in rs-smtpmail--account-server
           always (or (not (plist-member account setting))
                      (equal (plist-get account setting)
                             (symbol-value option)))))

(defun rs-smtpmail--account-in-force (buffer)
  "Return the account for the mail in BUFFER, unless another server is chosen."
  (let ((account (if rs-smtpmail--mail
                     (plist-get rs-smtpmail--mail :account)
                   (with-current-buffer buffer
                     (rs-smtpmail--account-of-mail)))))
    (and (or (not (rs-smtpmail--server-chosen-p))
             ;; Chosen when it was queued, perhaps.
             (rs-smtpmail--account-agrees-p account))
         account)))

(defun rs-smtpmail--call-with-account (account function)
  "Call FUNCTION with the options that ACCOUNT, if non-nil, stands for."
  (let ((settings (seq-filter (lambda (pair) (plist-member account (car pair)))
                              rs-smtpmail--account-options)))
    (cl-progv
        (mapcar #'cdr settings)
        (mapcar (lambda (pair) (plist-get account (car pair))) settings)
      (funcall function))))

(defun rs-smtpmail--accept (recipients buffer &optional options)
  "Put the mail in BUFFER for RECIPIENTS into the spool; return its id.
OPTIONS are further ones for `rs-smtp-send'."
  (let ((account (rs-smtpmail--account-in-force buffer)))
    (rs-smtpmail--call-with-account
     account
     (lambda ()
       (unless smtpmail-smtp-server
         (user-error "Sending failed: no server is set up for this mail; \
M-x rs-smtpmail-add-account does that"))
       (rs-smtpmail--call-with-wire-bytes
        buffer
        (lambda (message)
          (rs-smtp-send message
                        (or (plist-get account :envelope-from)
                            (rs-smtpmail--envelope-sender buffer))
                        (rs-smtpmail--qualified recipients)
                        (rs-smtpmail--server (plist-get account :ehlo))
                        nil
                        (append options
                                (and rs-smtpmail-dsn (list :dsn rs-smtpmail-dsn))))))))))

(defun rs-smtpmail--server-here ()
  "Return the server that would get a mail sent from this buffer.
Outside of mails, that is one from `user-mail-address'."
  (let* ((rs-smtpmail--mail
          (list :account (if (derived-mode-p 'message-mode 'mail-mode)
                             (rs-smtpmail--account-of-mail)
                           (rs-smtpmail--account-of (or user-mail-address "")))))
         (account (rs-smtpmail--account-in-force (current-buffer))))
    (rs-smtpmail--call-with-account
     account
     (lambda ()
       (rs-smtpmail--server (plist-get account :ehlo))))))

(provide 'rs-smtpmail-accounts)

;;; rs-smtpmail-accounts.el ends here
