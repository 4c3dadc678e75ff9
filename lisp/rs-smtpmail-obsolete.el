;;; rs-smtpmail-obsolete.el --- Credentials where smtpmail once had them  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Before Emacs 24, smtpmail had user names and passwords in the option
;; `smtpmail-auth-credentials', a list of (HOST PORT USER PASSWORD) or the name
;; of an authinfo file, and client certificates in
;; `smtpmail-starttls-credentials', a list of (HOST PORT KEY CERTIFICATE), the
;; latter two being files.  Who has them there still finds them honoured, after
;; `auth-sources', and is told once where they belong.

;;; Code:

(defvar smtpmail-auth-credentials)
(defvar smtpmail-starttls-credentials)

(defvar rs-smtpmail--obsolete-hints nil
  "The obsolete options about which the user has been told.")

(defun rs-smtpmail--obsolete-hint (option line)
  "Tell the user, once, to put LINE into an authinfo file instead of OPTION."
  (unless (memq option rs-smtpmail--obsolete-hints)
    (push option rs-smtpmail--obsolete-hints)
    (display-warning
     'rs-smtpmail
     (format "`%s' is obsolete.  Remove it, and put into ~/.authinfo.gpg:\n%s"
             option line)
     :warning)))

(defun rs-smtpmail--obsolete-entry (credentials host port)
  "Return the element of CREDENTIALS for HOST and PORT, a string."
  (seq-find (lambda (entry)
              (and (equal (nth 0 entry) host)
                   (equal (format "%s" (nth 1 entry)) port)))
            credentials))

(defun rs-smtpmail--obsolete-credentials (host port user)
  "Return what `smtpmail-auth-credentials' has for HOST, PORT and USER.
PORT is a string.  USER may be nil, for anybody.  The value is an answer
for the engine."
  (pcase (rs-smtpmail--obsolete-entry smtpmail-auth-credentials host port)
    ((and `(,_ ,_ ,name ,password)
          (guard (or (null user) (equal user name))))
     (rs-smtpmail--obsolete-hint
      'smtpmail-auth-credentials
      (format "machine %s port %s login %s password YOUR-PASSWORD" host port name))
     (list :user name
           ;; Where there was none, smtpmail asked.
           :secret (and (not (equal password "")) password)))))

(defun rs-smtpmail--obsolete-certificate (host port)
  "Return what `smtpmail-starttls-credentials' has for HOST and PORT.
PORT is a string.  The value is a list of two files, key and certificate,
or nil."
  (pcase (and (bound-and-true-p smtpmail-starttls-credentials)
              (rs-smtpmail--obsolete-entry smtpmail-starttls-credentials host port))
    (`(,_ ,_ ,(and (pred stringp) (pred file-regular-p) key)
          ,(and (pred stringp) (pred file-regular-p) certificate))
     (rs-smtpmail--obsolete-hint
      'smtpmail-starttls-credentials
      (format "machine %s port %s key %s cert %s" host port key certificate))
     (list key certificate))))

(provide 'rs-smtpmail-obsolete)

;;; rs-smtpmail-obsolete.el ends here
