;;; rs-smtpmail-providers.el --- What is known of mail providers  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Nothing but data, for `rs-smtpmail-add-account'.

;;; Code:

(defconst rs-smtpmail-providers
  '((:name "Gmail"
     :domains ("gmail.com" "googlemail.com")
     :mx ("google.com" "googlemail.com")
     :server "smtp.gmail.com" :port 465 :stream-type ssl
     :hint "Google takes no account password here: make an app password (which needs \
2-step verification), or use OAuth 2.")
    (:name "Outlook.com"
     :domains ("outlook.com" "outlook.de" "outlook.fr" "hotmail.com" "hotmail.co.uk"
               "hotmail.de" "hotmail.fr" "live.com" "msn.com")
     :mx ("olc.protection.outlook.com")
     :server "smtp-mail.outlook.com" :port 587 :stream-type starttls
     :hint "Microsoft takes no password here: OAuth 2 is needed.")
    (:name "Microsoft 365"
     :domains ("onmicrosoft.com")
     :mx ("mail.protection.outlook.com")
     :server "smtp.office365.com" :port 587 :stream-type starttls
     :hint "OAuth 2 is needed, and SMTP AUTH must be allowed for the mailbox by the \
organisation's administrator.")
    (:name "Fastmail"
     :domains ("fastmail.com" "fastmail.fm")
     :mx ("messagingengine.com")
     :server "smtp.fastmail.com" :port 465 :stream-type ssl
     :hint "Fastmail wants an app password.")
    (:name "iCloud"
     :domains ("icloud.com" "me.com" "mac.com")
     :mx ("mail.icloud.com")
     :server "smtp.mail.me.com" :port 587 :stream-type starttls
     :hint "Apple wants an app-specific password.  The user name is your iCloud Mail \
address, not an alias.")
    (:name "Yahoo"
     :domains ("yahoo.com" "ymail.com" "rocketmail.com" "yahoo.co.uk" "yahoo.de"
               "yahoo.fr" "yahoo.it" "yahoo.es")
     :server "smtp.mail.yahoo.com" :port 465 :stream-type ssl
     :hint "Yahoo wants an app password.")
    (:name "AOL"
     :domains ("aol.com" "aim.com")
     :server "smtp.aol.com" :port 465 :stream-type ssl
     :hint "AOL wants an app password.")
    (:name "GMX"
     :domains ("gmx.de" "gmx.net" "gmx.at" "gmx.ch")
     :server "mail.gmx.net" :port 465 :stream-type ssl
     :hint "Access by POP3 and IMAP must be allowed in the settings of GMX.")
    (:name "GMX"
     :domains ("gmx.com")
     :server "mail.gmx.com" :port 465 :stream-type ssl
     :hint "Access by POP3 and IMAP must be allowed in the settings of GMX.")
    (:name "WEB.DE"
     :domains ("web.de")
     :server "smtp.web.de" :port 587 :stream-type starttls
     :hint "Access by POP3 and IMAP must be allowed in the settings of WEB.DE.")
    (:name "T-Online"
     :domains ("t-online.de" "magenta.de")
     :server "securesmtp.t-online.de" :port 465 :stream-type ssl
     :hint "The password is the one for e-mail programs, not that of the login.")
    (:name "Posteo"
     :domains ("posteo.de" "posteo.net" "posteo.org" "posteo.eu")
     :mx ("posteo.de")
     :server "posteo.de" :port 465 :stream-type ssl)
    (:name "mailbox.org"
     :domains ("mailbox.org")
     :mx ("mailbox.org")
     :server "smtp.mailbox.org" :port 465 :stream-type ssl)
    (:name "Proton Mail"
     :domains ("proton.me" "protonmail.com" "pm.me")
     :mx ("protonmail.ch")
     :server "127.0.0.1" :port 1025 :stream-type starttls
     :hint "Proton Mail Bridge must run on this machine.  It shows its port and the \
password to use.  Export its certificate and add it to `gnutls-trustfiles'.")
    (:name "Zoho"
     :domains ("zoho.com" "zohomail.com")
     :server "smtp.zoho.com" :port 465 :stream-type ssl
     :hint "With two-factor authentication, Zoho wants an app password.")
    (:name "Zoho"
     :domains ("zohomail.eu")
     :server "smtp.zoho.eu" :port 465 :stream-type ssl
     :hint "With two-factor authentication, Zoho wants an app password.")
    (:name "Migadu"
     :mx ("migadu.com")
     :server "smtp.migadu.com" :port 465 :stream-type ssl)
    (:name "Gandi"
     :mx ("mail.gandi.net")
     :server "mail.gandi.net" :port 465 :stream-type ssl)
    (:name "Yandex"
     :domains ("yandex.com" "yandex.ru" "ya.ru")
     :mx ("mx.yandex.net")
     :server "smtp.yandex.com" :port 465 :stream-type ssl
     :hint "Yandex wants an app password, and mail programs allowed in its settings."))
  "Mail providers, property lists.
`:domains' are the domains of their addresses, and `:mx' of the servers
that receive mail for their customers' domains.  `:hint' is what the user
must know to log in.")

(provide 'rs-smtpmail-providers)

;;; rs-smtpmail-providers.el ends here
