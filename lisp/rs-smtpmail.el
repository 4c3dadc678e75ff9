;;; rs-smtpmail.el --- Send mail without waiting, by a native SMTP module  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; Author: The rs-smtpmail authors
;; Maintainer: The rs-smtpmail authors
;; Version: 0.1.0
;; Package-Requires: ((emacs "28.1"))
;; Keywords: mail
;; URL: https://github.com/rs-smtpmail/rs-smtpmail

;; This program is free software: you can redistribute it and/or modify
;; it under the terms of the GNU General Public License as published by
;; the Free Software Foundation, either version 3 of the License, or
;; (at your option) any later version.

;; This program is distributed in the hope that it will be useful,
;; but WITHOUT ANY WARRANTY; without even the implied warranty of
;; MERCHANTABILITY or FITNESS FOR A PARTICULAR PURPOSE.  See the
;; GNU General Public License for more details.

;; You should have received a copy of the GNU General Public License
;; along with this program.  If not, see <https://www.gnu.org/licenses/>.

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Delivers mail where smtpmail would, by a dynamic module: the message is
;; put in a spool on disk, Emacs goes on at once, and native threads talk to
;; the server.  Every `smtpmail-*' option keeps its meaning.
;;
;; Either route everything that uses smtpmail through the module:
;;
;;     (rs-smtpmail-mode 1)
;;
;; or name it where mail is sent:
;;
;;     (setq send-mail-function #'rs-smtpmail-send-it
;;           message-send-mail-function #'rs-smtpmail-send-it)
;;
;; Other packages can hand over messages with `rs-smtp-send'.
;;
;; Preparing the header stays smtpmail's work: `smtpmail-send-it' runs as it
;; is, and two of the functions that it calls are advised, the one that finds
;; the recipients and the one that talks to the server.

;;; Code:

(eval-when-compile (require 'cl-lib))

(defvar mail-header-separator)
(defvar smtpmail-address-buffer)
(defvar smtpmail-mail-address)
(defvar smtpmail-queue-mail)
(defvar smtpmail-recipient-address-list)
(defvar smtpmail-store-queue-variables)

(declare-function rs-smtpmail--accept "rs-smtpmail-accounts")
(declare-function rs-smtpmail--account-in-force "rs-smtpmail-accounts")
(declare-function rs-smtpmail--account-of-mail "rs-smtpmail-accounts")
(declare-function rs-smtpmail--call-with-account "rs-smtpmail-accounts")
(declare-function rs-smtpmail--body-to-keep "rs-smtpmail-message")
(declare-function rs-smtpmail--changed "rs-smtpmail-engine")
(declare-function rs-smtpmail--check-header "rs-smtpmail-message")
(declare-function rs-smtpmail--complete-smtp-method "rs-smtpmail-message")
(declare-function rs-smtpmail--guarded "rs-smtpmail-engine")
(declare-function rs-smtpmail--header-separator "rs-smtpmail-message")
(declare-function rs-smtpmail--let-go "rs-smtpmail-later")
(declare-function rs-smtpmail--mail-recipients "rs-smtpmail-message")
(declare-function rs-smtpmail--note-filed "rs-smtpmail-copy")
(declare-function rs-smtpmail--recipients-between "rs-smtpmail-message")
(declare-function rs-smtpmail--sender "rs-smtpmail-message")
(declare-function rs-smtpmail--wait-for-one "rs-smtpmail-engine")
(declare-function rs-smtpmail--with-wishes "rs-smtpmail-later")

(defconst rs-smtpmail-version "0.1.0"
  "The version of this package, and of the native module that it needs.")

;;;; Customization

(defgroup rs-smtpmail nil
  "Sending mail by a native SMTP module."
  :group 'mail
  :prefix "rs-smtpmail-")

(defcustom rs-smtpmail-spool-directory
  (locate-user-emacs-file "rs-smtpmail/")
  "Directory in which messages are kept until they are sent.
It is created, for you alone, when it is first needed.  A change takes
effect when Emacs is started again."
  :type 'directory
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-synchronous 'batch
  "Whether sending waits until the server has answered.
Then a failure is signalled to the caller, as smtpmail does."
  :type '(choice (const :tag "In batch Emacs only" batch)
                 (const :tag "Always" t)
                 (const :tag "Never" nil))
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-accounts nil
  "Servers by sender, an alist.
Each key is a mail address, \"*@DOMAIN\" for any address there, or a
function of no arguments, called in the buffer of the mail, which returns
non-nil if the account is the mail's.  The first key that fits the sender
decides.  The sender is the address in From; Sender's if From names
several; that of Resent-Sender or Resent-From if the mail is resent.

The value is a property list.  `:server', `:port', `:stream-type', `:user'
and `:local-domain' stand for `smtpmail-smtp-server',
`smtpmail-smtp-service', `smtpmail-stream-type', `smtpmail-smtp-user' and
`smtpmail-local-domain'; what is left out is as those options say.
`:ehlo' is the whole name to introduce this machine by, and
`:envelope-from' the envelope sender.

An account steps back where the server has been chosen for the mail by
other means: an X-Message-SMTP-Method field, or a binding, local to the
buffer or by `let', of one of the first four options.

Use \\[rs-smtpmail-add-account] to add an account."
  :type '(alist :key-type (choice (string :tag "Address or *@domain")
                                  (function :tag "Predicate"))
                :value-type
                (plist :options
                       ((:server string)
                        (:port (choice natnum string))
                        (:stream-type (choice (const :tag "TLS at once" ssl)
                                              (const :tag "STARTTLS" starttls)
                                              (const :tag "STARTTLS if offered" nil)
                                              (const :tag "No TLS" plain)))
                        (:user (choice (const :tag "Any" nil) string))
                        (:local-domain (choice (const :tag "None" nil) string))
                        (:ehlo string)
                        (:envelope-from string))))
  :risky t
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-unconfirmed 'ask
  "What to do with a message that the server may or may not have taken.
That is one whose connection broke between its last byte and the
server's reply."
  :type '(choice (const :tag "Keep it until I decide" ask)
                 (const :tag "Send it again" retry))
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-undo-delay 0
  "Seconds for which a message is kept back before it is sent.
Meanwhile \\[rs-smtpmail-undo-send] brings it back for editing.  There is no
delay where sending waits for the server; see `rs-smtpmail-synchronous'."
  :type 'number
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-send-at-date 'sending
  "The Date of a message that is to be sent later.
That is one sent by \\[rs-smtpmail-send-at], or with a field
X-Rs-Smtpmail-Send-At.  Most recipients have their mail sorted by Date."
  :type '(choice (const :tag "When it is sent" sending)
                 (const :tag "When it was composed" composing))
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-defer-fcc nil
  "Whether copies are filed only when the server has accepted the message.
Copies are those in files that Fcc names, and in Gnus's groups that Gcc
names.  If nil, they are filed by the mail mode at its own time: when the
message has been put in the spool, but may not have been sent.

A copy that is piped to a program, or that Fcc's handler function files if
that has no name, is filed at the mode's own time in any case; so are those
of mail in smtpmail's queue, and of mail that is posted as news, too."
  :type 'boolean
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-mode-line t
  "Whether `rs-smtpmail-mode' counts unsent mail in the mode line.
That is done by `rs-smtpmail-mode-line-mode', which can also be turned on by
itself.  Where no mail waits, nothing is shown."
  :type 'boolean
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-retry-first-pause 60
  "Seconds until sending is tried again after the first transient trouble.
Each further pause is twice as long as the one before."
  :type 'number
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-retry-longest-pause (* 4 60 60)
  "Seconds that the pause between two tries grows to."
  :type 'number
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-retry-give-up (* 5 24 60 60)
  "Seconds after which a message is not tried again, but failed."
  :type 'number
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-notify nil
  "What to tell by desktop notifications.
A list of some of `sent', for messages that all recipients' servers have got,
and `failed', for those that can't be sent without you.  Where there is no
D-Bus, or no desktop that shows notifications, this does nothing."
  :type '(set (const :tag "Messages sent" sent)
              (const :tag "Messages that need you" failed))
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-sent-functions nil
  "Functions to call when a message has been sent to all its recipients.
Each gets one argument, the message's entry, a property list as
`rs-smtp-queue-list' returns it."
  :type 'hook
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-failed-functions nil
  "Functions to call when a message can't be sent without the user.
Each gets one argument, the message's entry, a property list as
`rs-smtp-queue-list' returns it.  Its `:state' is `failed', `unconfirmed'
or `needs-user'.  Transient trouble, after which sending is tried again,
calls none of them."
  :type 'hook
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-allow-cleartext-auth nil
  "Host names of servers that may get a password over an unencrypted line.
This machine may always."
  :type '(repeat (string :tag "Host name"))
  :risky t
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-tls-pins nil
  "Keys of servers that are trusted whatever their certificates say.
An alist from \"HOST:PORT\" to the SHA-256 fingerprint of the server's
public key (64 hexadecimal digits, with or without colons), or a list of
fingerprints, such as the present key's and the next one's.  A server that
is named here and has another key is not trusted, even if its certificate
is valid: you are asked, with an alarm.  Answering \"always\" about a
certificate adds to this list."
  :type '(alist :key-type (string :tag "Host:port")
                :value-type (choice (string :tag "Fingerprint")
                                    (repeat (string :tag "Fingerprint"))))
  :risky t
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-proxy nil
  "SOCKS5 proxy for all connections, as \"host:port\", or nil for none.
The proxy looks host names up."
  :type '(choice (const :tag "None" nil) (string :tag "Host:port"))
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-dsn nil
  "Delivery status notifications to ask the server for (RFC 3461).
A property list: `:ret' is `full' or `hdrs', for what of the message a
notification shall hold; `:notify' is a list of some of `success',
`failure' and `delay', or of `never' alone.  A server that does not offer
DSN is not asked.  A value local to the mail buffer is for that mail;
see `rs-smtpmail-request-dsn'."
  :type '(choice (const :tag "None" nil)
                 (plist :options
                        ((:ret (choice (const full) (const hdrs)))
                         (:notify (set (const success) (const failure)
                                       (const delay) (const never))))))
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-max-connections 2
  "How many connections to one server may be open at the same time."
  :type 'natnum
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-idle-timeout 5
  "Seconds for which a connection is kept open for the next message."
  :type 'number
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-connect-timeout nil
  "Seconds to wait for a connection, or nil for the default."
  :type '(choice (const :tag "Default" nil) number)
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

(defcustom rs-smtpmail-reply-timeout nil
  "Seconds to wait for a reply of the server, or nil for the default.
The default, as RFC 5321 recommends, is several minutes."
  :type '(choice (const :tag "Default" nil) number)
  :group 'rs-smtpmail
  :package-version '(rs-smtpmail . "0.1.0"))

;; Options that only few need, in a file of their own.
(custom-autoload 'rs-smtpmail-oauth2-token-function "rs-smtpmail-oauth2" t)
(custom-autoload 'rs-smtpmail-oauth2-token-command "rs-smtpmail-oauth2" t)
(custom-add-load 'rs-smtpmail "rs-smtpmail-oauth2")

;;;; Native functions

;; The first call of one of these finds and maps the module.  They return at
;; once, and their errors are signalled as `rs-smtp-error'.

;;;###autoload
(autoload 'rs-smtp-send "rs-smtpmail-native"
  "Accept MESSAGE for sending in the background; return its id.
See also `rs-smtp-queue-list'.

\(fn MESSAGE SENDER RECIPIENTS SERVER &optional CALLBACK OPTIONS)")

;;;###autoload
(autoload 'rs-smtp-check-server "rs-smtpmail-native"
  "Check whether mail could be sent to SERVER; return the check's number.\n\n(fn SERVER)")

;;;###autoload
(autoload 'rs-smtp-queue-list "rs-smtpmail-native"
  "Return the messages in the spool, a list of plists, oldest first.
See also `rs-smtp-queue-retry' and `rs-smtp-queue-remove'.

\(fn &optional ID)")

;;;###autoload
(autoload 'rs-smtp-queue-resume "rs-smtpmail-native"
  "Schedule what an earlier Emacs left; return the number of entries.\n\n(fn)")

;;;###autoload
(autoload 'rs-smtp-queue-flush "rs-smtpmail-native"
  "Try everything that waits now; return the number of entries.\n\n(fn)")

;;;###autoload
(autoload 'rs-smtp-queue-retry "rs-smtpmail-native"
  "Try entry ID now, whatever its state.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-queue-hold "rs-smtpmail-native"
  "Keep entry ID from being sent if HOLD is non-nil, else release it.\n\n(fn ID HOLD)")

;;;###autoload
(autoload 'rs-smtp-queue-remove "rs-smtpmail-native"
  "Delete entry ID and its message.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-queue-message "rs-smtpmail-native"
  "Return the message of entry ID, a unibyte string with CRLF line ends.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-queue-schedule "rs-smtpmail-native"
  "Send entry ID at TIME, or now if TIME is nil.\n\n(fn ID TIME)")

;;;###autoload
(autoload 'rs-smtp-queue-export "rs-smtpmail-native"
  "Write entry ID's message to FILE, which then stands for it.\n\n(fn ID FILE)")

;;;###autoload
(autoload 'rs-smtp-queue-filed "rs-smtpmail-native"
  "Take note that entry ID's copy is filed, or of the PROBLEM.

\(fn ID &optional PROBLEM COPY)")

;;;###autoload
(autoload 'rs-smtp-cancel "rs-smtpmail-native"
  "Stop sending entry ID and hold it; nil if the server has it already.\n\n(fn ID)")

;;;###autoload
(autoload 'rs-smtp-parse-addresses "rs-smtpmail-native"
  "Return the addresses in TEXT, the value of the header field FIELD.\n\n(fn TEXT &optional FIELD)")

;;;###autoload
(autoload 'rs-smtp-version "rs-smtpmail-native"
  "Return the version of the native module.\n\n(fn)")

;;;; Internal variables

(defvar rs-smtpmail-mode)

(defvar rs-smtpmail--calls 0
  "How many calls of `rs-smtpmail-send-it' are under way.")

(defvar rs-smtpmail--mail nil
  "What was found about the mail under way before anything was done.
A property list of `:recipients', `:sender', both for the envelope,
`:account', and `:body', which may be nil; see `rs-smtpmail--body-to-keep'.")

(defvar rs-smtpmail--under-way nil
  "What is wished for the message under way, a plist.
See `rs-smtpmail--with-wishes'.")

(defvar rs-smtpmail--recallable nil
  "Messages of this session that may be taken back, newest first.
An alist of their ids and plists; see `rs-smtpmail--let-go'.")

(defvar rs-smtpmail--resumed nil
  "Whether what an earlier Emacs left has been taken up.")

(defvar rs-smtpmail--spool-timer nil
  "Timer of `rs-smtpmail-mode' that looks into the spool.")

(defconst rs-smtpmail--options
  '(rs-smtpmail-defer-fcc rs-smtpmail-dsn rs-smtpmail-send-at-date
    rs-smtpmail-synchronous rs-smtpmail-undo-delay smtpmail-debug-info
    smtpmail-code-conv-from smtpmail-local-domain smtpmail-mail-address
    smtpmail-queue-dir smtpmail-queue-index-file smtpmail-queue-mail
    smtpmail-retries smtpmail-sendto-domain smtpmail-servers-requiring-authorization
    smtpmail-smtp-server smtpmail-smtp-service smtpmail-smtp-user
    smtpmail-store-queue-variables smtpmail-stream-type)
  "Options that may be local to the mail buffer.")

(defconst rs-smtpmail--advice
  '((smtpmail-send-it . rs-smtpmail--around-send-it)
    (smtpmail-deduce-address-list . rs-smtpmail--around-deduce)
    (smtpmail-via-smtp . rs-smtpmail--around-via-smtp)
    (smtpmail-send-queued-mail . rs-smtpmail--around-send-queued-mail)
    (message-multi-smtp-send-mail . rs-smtpmail--around-multi-smtp))
  "Functions of smtpmail and message.el, and our advice around them.")

;;;; Taking over from smtpmail

(defun rs-smtpmail--advise ()
  "Advise smtpmail's functions, inside of everybody else's advice."
  (pcase-dolist (`(,function . ,advice) rs-smtpmail--advice)
    (advice-add function :around advice '((depth . 100)))))

(defun rs-smtpmail--unadvise ()
  "Remove our advice, unless something still needs it."
  (unless (or rs-smtpmail-mode (> rs-smtpmail--calls 0))
    (pcase-dolist (`(,function . ,advice) rs-smtpmail--advice)
      (advice-remove function advice))))

(defun rs-smtpmail--routing-p ()
  "Return non-nil if the module takes over what smtpmail is asked to do."
  (or rs-smtpmail-mode (> rs-smtpmail--calls 0)))

(defun rs-smtpmail--around-send-it (original)
  "Check the mail before ORIGINAL, `smtpmail-send-it', touches anything."
  (if (not (rs-smtpmail--routing-p))
      (funcall original)
    (require 'rs-smtpmail-accounts)
    (require 'rs-smtpmail-later)
    (let ((mail-header-separator (rs-smtpmail--header-separator)))
      (rs-smtpmail--check-header)
      (rs-smtpmail--with-wishes
       (lambda () (rs-smtpmail--send-by-account original))))))

(defun rs-smtpmail--send-by-account (original)
  "Call ORIGINAL, `smtpmail-send-it', once it is known who sends to whom."
  (let* ((rs-smtpmail--mail (list :recipients (rs-smtpmail--mail-recipients)
                                  :sender (rs-smtpmail--sender)
                                  :account (rs-smtpmail--account-of-mail)
                                  :body (rs-smtpmail--body-to-keep)))
         (account (rs-smtpmail--account-in-force (current-buffer))))
    (unless (plist-get rs-smtpmail--mail :recipients)
      (user-error "Sending failed: no recipients in To, Cc or Bcc"))
    (save-restriction
      (pcase (plist-get rs-smtpmail--mail :body)
        (`(,_ ,start ,_) (narrow-to-region (point-min) start)))
      (rs-smtpmail--with-buffer-options
       (lambda ()
         (if (and account smtpmail-queue-mail)
             ;; The account's server must be stored with the mail.
             (let ((smtpmail-store-queue-variables t))
               (rs-smtpmail--call-with-account account original))
           (funcall original)))))))

(defun rs-smtpmail--with-buffer-options (function)
  "Call FUNCTION with the options local to this buffer in force everywhere.
For smtpmail reads most of them in a temporary buffer."
  (let* ((buffer (current-buffer))
         (options (seq-filter #'local-variable-p rs-smtpmail--options))
         (values (mapcar #'symbol-value options)))
    (unwind-protect
        (progn
          (mapc #'kill-local-variable options)
          (cl-progv options values
            (funcall function)))
      (when (buffer-live-p buffer)
        (with-current-buffer buffer
          ;; Emacs remarks on options that our caller has let-bound.
          (let ((inhibit-message t)
                (message-log-max nil))
            (cl-mapc (lambda (option value)
                       (set (make-local-variable option) value))
                     options values)))))))

(defun rs-smtpmail--around-deduce (original buffer start end)
  "Return the recipients between START and END in BUFFER, or call ORIGINAL."
  (if (not (rs-smtpmail--routing-p))
      (funcall original buffer start end)
    (let (done)
      ;; Our caller has taken the address in From in any case.
      (when rs-smtpmail--mail
        (setq smtpmail-mail-address (plist-get rs-smtpmail--mail :sender)))
      (unwind-protect
          (prog1 (setq smtpmail-recipient-address-list
                       (or (plist-get rs-smtpmail--mail :recipients)
                           (with-current-buffer buffer
                             (rs-smtpmail--recipients-between start end))))
            (setq done t))
        (unless done
          ;; Our caller would kill it after a normal return only.
          (kill-buffer smtpmail-address-buffer))))))

(defun rs-smtpmail--around-via-smtp (original recipients buffer &rest arguments)
  "Hand the message in BUFFER for RECIPIENTS to the module.
Or call ORIGINAL with these and ARGUMENTS if it is none of our business."
  (if (not (rs-smtpmail--routing-p))
      (apply original recipients buffer arguments)
    (require 'rs-smtpmail-accounts)
    (let* ((wishes rs-smtpmail--under-way)
           (id (rs-smtpmail--accept recipients buffer (plist-get wishes :options))))
      (rs-smtpmail--changed id)
      (unless rs-smtpmail--resumed
        (setq rs-smtpmail--resumed t)
        ;; This message is accepted, whatever is wrong with others.
        (rs-smtpmail--guarded "resuming" #'rs-smtp-queue-resume))
      (when wishes
        (rs-smtpmail--note-filed id wishes))
      (when (and (rs-smtpmail--synchronous-p) (not (plist-get wishes :time)))
        ;; What else is sent while we wait is not this message.
        (let ((rs-smtpmail--under-way nil)
              (rs-smtpmail--mail nil)
              (rs-smtpmail--calls 0))
          (rs-smtpmail--wait-for-one id)))
      (when wishes
        ;; A second message from the same buffer must not be filed, too.
        (setq rs-smtpmail--under-way nil)
        (rs-smtpmail--let-go id wishes))
      ;; What smtpmail takes for success.
      nil)))

(defun rs-smtpmail--around-send-queued-mail (original)
  "Send queued mail our way, or by ORIGINAL if `rs-smtpmail-mode' is off."
  (if rs-smtpmail-mode
      (rs-smtpmail-send-queued-mail)
    (funcall original)))

(defun rs-smtpmail--around-multi-smtp (original)
  "Complete the header's account before ORIGINAL, which needs a port in it."
  (when rs-smtpmail-mode
    (require 'rs-smtpmail-message)
    (rs-smtpmail--complete-smtp-method))
  (funcall original))

(defun rs-smtpmail--synchronous-p ()
  "Whether to wait for the server's answer; see `rs-smtpmail-synchronous'."
  (if (eq rs-smtpmail-synchronous 'batch)
      noninteractive
    rs-smtpmail-synchronous))

;;;; Commands

;;;###autoload
(defun rs-smtpmail-send-it ()
  "Send the mail in the current buffer.
A value for the options `send-mail-function' and the variable
`message-send-mail-function'.  The mail is safely in the spool when this
returns; the outcome is told later, unless `rs-smtpmail-synchronous' says
otherwise."
  (require 'smtpmail)
  (unwind-protect
      (let ((rs-smtpmail--calls (1+ rs-smtpmail--calls)))
        (rs-smtpmail--advise)
        (smtpmail-send-it))
    (rs-smtpmail--unadvise)))

;; For those who only `require' this file.
(autoload 'rs-smtpmail-send-queued-mail "rs-smtpmail-queue"
  "Send what waits in smtpmail's queue and in the spool." t)
(autoload 'rs-smtpmail-resume "rs-smtpmail-queue"
  "Take up what an earlier Emacs left in the spool." t)
(autoload 'rs-smtpmail-export-queue "rs-smtpmail-queue"
  "Move the messages in the spool to smtpmail's queue." t)
(autoload 'rs-smtpmail-retry "rs-smtpmail-queue"
  "Try again to send a message that waits or failed." t)
(autoload 'rs-smtpmail-remove "rs-smtpmail-queue"
  "Give up a message in the spool and delete it." t)
(autoload 'rs-smtpmail-send-at "rs-smtpmail-later"
  "Send the mail in this buffer at TIME." t)
(autoload 'rs-smtpmail-undo-send "rs-smtpmail-later"
  "Take back a message that has not been sent yet, and edit it." t)
(autoload 'rs-smtpmail-outbox "rs-smtpmail-outbox"
  "Show the mail that has not been sent yet." t)
(autoload 'rs-smtpmail-mode-line-mode "rs-smtpmail-mode-line"
  "Count in the mode line the mail that has not been sent." t)
(autoload 'rs-smtpmail-check-server "rs-smtpmail-watch"
  "Check whether mail could be sent to SERVER, and show each step." t)
(autoload 'rs-smtpmail-tls-forget "rs-smtpmail-tls"
  "Forget what was learnt of the TLS of SERVER." t)
(autoload 'rs-smtpmail-request-dsn "rs-smtpmail-watch"
  "Ask for a notification when the mail in this buffer has been delivered." t)
(autoload 'rs-smtpmail-add-account "rs-smtpmail-add-account"
  "Add an account for ADDRESS to `rs-smtpmail-accounts'." t)
(autoload 'rs-smtpmail-compile-module "rs-smtpmail-build"
  "Build the native module from its sources." t)

;;;; Mode

(defun rs-smtpmail--look-into-spool ()
  "Take up what an earlier Emacs left, without the module if it left nothing."
  (let ((queue (expand-file-name "queue" rs-smtpmail-spool-directory)))
    (when (and (not rs-smtpmail--resumed)
               (file-accessible-directory-p queue)
               (directory-files queue nil "\\`[^.]" t 1))
      (condition-case err
          (rs-smtpmail-resume)
        (error (display-warning
                'rs-smtpmail
                (format "Mail waits in %s: %s"
                        rs-smtpmail-spool-directory
                        (error-message-string err))))))))

;;;###autoload
(define-minor-mode rs-smtpmail-mode
  "Send by the native module what would be sent by smtpmail.
This covers everything that calls `smtpmail-send-it',
`smtpmail-via-smtp' or `smtpmail-send-queued-mail'.  Mail that an
earlier Emacs left in the spool is taken up when Emacs is idle.  The mode
line counts what has not been sent, unless `rs-smtpmail-mode-line' is nil."
  :global t
  :group 'rs-smtpmail
  (when rs-smtpmail--spool-timer
    (cancel-timer rs-smtpmail--spool-timer)
    (setq rs-smtpmail--spool-timer nil))
  (when (if rs-smtpmail-mode
            rs-smtpmail-mode-line
          (bound-and-true-p rs-smtpmail-mode-line-mode))
    (rs-smtpmail-mode-line-mode (if rs-smtpmail-mode 1 -1)))
  (cond
   (rs-smtpmail-mode
    (rs-smtpmail--advise)
    (setq rs-smtpmail--spool-timer
          (run-with-idle-timer 2 nil #'rs-smtpmail--look-into-spool)))
   (t (rs-smtpmail--unadvise))))

(provide 'rs-smtpmail)

;;; rs-smtpmail.el ends here
