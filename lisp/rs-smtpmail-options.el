;;; rs-smtpmail-options.el --- What users can set  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The options of rs-smtpmail, beside those of smtpmail itself.

;;; Code:

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
(custom-autoload 'rs-smtpmail-cargo "rs-smtpmail-compile" t)
(custom-add-load 'rs-smtpmail "rs-smtpmail-oauth2")
(custom-add-load 'rs-smtpmail "rs-smtpmail-compile")

(provide 'rs-smtpmail-options)

;;; rs-smtpmail-options.el ends here
