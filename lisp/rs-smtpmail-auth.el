;;; rs-smtpmail-auth.el --- Settings and secrets for the native engine  -*- lexical-binding: t -*-

;; Copyright (C) 2025 The rs-smtpmail authors

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; The engine reads netrc-format files by itself, and asks for what is in
;; the other `auth-sources', and for what only the user knows.

;;; Code:

(require 'auth-source)
(require 'gnutls)
(require 'rs-smtpmail)
(require 'rs-smtpmail-ask)
(require 'rs-smtpmail-tls)

(defvar epg-pinentry-mode)
(defvar smtpmail-auth-supported)

(declare-function rs-smtp--can-decrypt-p "ext:rs-smtpmail-module" () t)
(declare-function rs-smtp--answer "ext:rs-smtpmail-module" (request answer) t)
(autoload 'rs-smtpmail--obsolete-credentials "rs-smtpmail-obsolete")

(autoload 'rs-smtpmail--answer-token "rs-smtpmail-oauth2")
(autoload 'rs-smtpmail--tell-token-replaced "rs-smtpmail-oauth2")

;;;; Internal variables

(defvar rs-smtpmail--lisp-sources nil
  "Elements of `auth-sources' that the engine has us search.
It names them by their place in this list, which only ever grows.")

(defvar rs-smtpmail--unsaved nil
  "What saves credentials once they have worked: lists (REQUEST QUERY FUNCTION).
QUERY is what was asked for; the function holds the password.")

(defvar rs-smtpmail--last-user nil
  "User name that was typed last, offered again if it is refused.")

(defconst rs-smtpmail--prompts
  '((user . "SMTP user name for %h: ")
    (secret . "SMTP password for %u@%h: "))
  "The prompts of smtpmail, for `auth-source-creation-prompts'.")

(defconst rs-smtpmail--mechanisms '(cram-md5 plain login)
  "Value of `smtpmail-auth-supported' that nobody has changed.")

;;;; Settings

(defun rs-smtpmail--settings ()
  "Return the settings for the engine, a property list."
  (list :auth-sources (mapcar #'rs-smtpmail--auth-source
                              (rs-smtpmail--all-auth-sources))
        :oauth2-tokens (or (bound-and-true-p rs-smtpmail-oauth2-token-function)
                           (bound-and-true-p rs-smtpmail-oauth2-token-command))
        :trust-files (rs-smtpmail--trust-files)
        :crl-files (mapcar #'expand-file-name (gnutls-crlfiles))
        :tls-priority gnutls-algorithm-priority
        :tls-pins (rs-smtpmail--tls-pins)
        :cleartext-auth-hosts rs-smtpmail-allow-cleartext-auth
        :max-connections rs-smtpmail-max-connections
        :idle-timeout rs-smtpmail-idle-timeout
        :connect-timeout rs-smtpmail-connect-timeout
        :reply-timeout rs-smtpmail-reply-timeout
        :loopback-pinentry (and (boundp 'epg-pinentry-mode)
                                (eq epg-pinentry-mode 'loopback))
        :unconfirmed rs-smtpmail-unconfirmed
        :retry-first-pause rs-smtpmail-retry-first-pause
        :retry-longest-pause rs-smtpmail-retry-longest-pause
        :retry-give-up rs-smtpmail-retry-give-up
        :proxy rs-smtpmail-proxy
        :trace (bound-and-true-p smtpmail-debug-info)
        :auth-mechanisms (and (boundp 'smtpmail-auth-supported)
                              (not (equal smtpmail-auth-supported
                                          rs-smtpmail--mechanisms))
                              smtpmail-auth-supported)))

(defun rs-smtpmail--trust-files ()
  "Return the files that variable `gnutls-trustfiles' names, absolute.
The system's own, which are its standard value, the engine knows."
  (let ((standard (eval (car (get 'gnutls-trustfiles 'standard-value)) t)))
    (mapcar #'expand-file-name
            (seq-difference (gnutls-trustfiles)
                            (and (listp standard) standard)))))

(defun rs-smtpmail--all-auth-sources ()
  "Return `auth-sources', and what older versions of smtpmail had instead."
  (append auth-sources
          (pcase (bound-and-true-p smtpmail-auth-credentials)
            ('nil nil)
            ((and (pred stringp) file) (list file))
            (_ '(smtpmail-auth-credentials)))))

(defun rs-smtpmail--auth-source (source)
  "Return SOURCE, an element of `auth-sources', as the engine knows it."
  (let ((file (rs-smtpmail--netrc-file source))
        (restrictions (rs-smtpmail--restrictions source)))
    (cond
     ((and file restrictions)
      (append (list :netrc (expand-file-name file)) restrictions))
     (file (expand-file-name file))
     (t (unless (member source rs-smtpmail--lisp-sources)
          (setq rs-smtpmail--lisp-sources
                (append rs-smtpmail--lisp-sources (list source))))
        (list 'lisp (seq-position rs-smtpmail--lisp-sources source))))))

(defun rs-smtpmail--netrc-file (source)
  "Return the local netrc-format file that SOURCE is about, or nil."
  (pcase source
    ((pred stringp)
     (unless (or (string-match-p "\\`\\(?:secrets\\|macos-keychain-[a-z]+\\):." source)
                 (string-match-p "\\.\\(?:plist\\|json\\)\\(?:\\.gpg\\)?\\'" source)
                 (file-remote-p source)
                 (rs-smtpmail--search-advised-p)
                 (and (string-suffix-p ".gpg" source)
                      (not (rs-smtpmail--engine-decrypts-p))))
       source))
    ((and `(:source ,(and (pred stringp) file) . ,restrictions)
          (guard (seq-every-p (lambda (key)
                                (or (memq (plist-get restrictions key) '(nil t))
                                    (stringp (plist-get restrictions key))))
                              '(:host :port :user))))
     (rs-smtpmail--netrc-file file))))

(defun rs-smtpmail--search-advised-p ()
  "Return non-nil if some package advises auth-source's search.
Then only auth-source itself can tell what is to be had from a file:
auth-source-xoauth2-plugin replaces secrets with access tokens."
  (catch 'advised
    (dolist (function '(auth-source-search auth-source-search-backends))
      (advice-mapc (lambda (&rest _) (throw 'advised t)) function))))

(defun rs-smtpmail--engine-decrypts-p ()
  "Whether the engine decrypts as Emacs would, with the same keys."
  (and (rs-smtp--can-decrypt-p)
       (not (bound-and-true-p epg-gpg-home-directory))
       ;; It has the environment that Emacs was started with.
       (equal (getenv "GNUPGHOME")
              (let ((process-environment initial-environment))
                (getenv "GNUPGHOME")))))

(defun rs-smtpmail--restrictions (source)
  "Return what SOURCE, an element of `auth-sources', is only for, a plist."
  (when (listp source)
    (mapcan (lambda (key)
              (let ((value (plist-get source key)))
                (unless (memq value '(nil t))
                  (list key value))))
            '(:host :port :user))))

;;;; Credentials

(defun rs-smtpmail--answer-credentials (event)
  "Answer EVENT, by which the engine asks for credentials."
  (let ((source (plist-get event :source)))
    (cond
     (source
      (rs-smtpmail--answer event (rs-smtpmail--search event source)))
     (noninteractive
      (rs-smtpmail--answer event nil))
     (t (rs-smtpmail--when-user-is-there #'rs-smtpmail--ask-credentials event)))))

(defun rs-smtpmail--answer (event answer)
  "Give ANSWER to the request of EVENT."
  (let ((request (plist-get event :request)))
    (condition-case err
        (rs-smtp--answer request answer)
      ;; A backend's strange result must not leave the engine waiting.
      (error (rs-smtp--answer request
                              (list :error (error-message-string err)))))))

(defun rs-smtpmail--query (event)
  "Return the search terms for the credentials that EVENT is about."
  (list :max 1
        :host (plist-get event :host)
        :port (plist-get event :port)
        :user (plist-get event :user)))

(defun rs-smtpmail--search (event number)
  "Search the source of that NUMBER for EVENT; return an answer."
  (condition-case err
      (rs-smtpmail--stoppably
        (if (eq (nth number rs-smtpmail--lisp-sources) 'smtpmail-auth-credentials)
            (rs-smtpmail--obsolete-credentials (plist-get event :host)
                                               (plist-get event :port)
                                               (plist-get event :user))
          (rs-smtpmail--search-backend event (nth number rs-smtpmail--lisp-sources))))
    (quit (list :later "You have stopped the search for the password"))
    (error (list :error (format "Searching for credentials failed: %s"
                                (error-message-string err))))))

(defun rs-smtpmail--search-backend (event source)
  "Search SOURCE, an element of `auth-sources', for EVENT; return an answer."
  (let ((auth-sources (list source))
        ;; The cache does not tell the sources apart.
        (auth-source-do-cache (and auth-source-do-cache
                                   (null (cdr rs-smtpmail--lisp-sources)))))
    (rs-smtpmail--as-answer
     (car (apply #'auth-source-search (rs-smtpmail--query event))))))

(defun rs-smtpmail--as-answer (found)
  "Return FOUND, a result of `auth-source-search', as an answer."
  (when found
    (let ((secret (plist-get found :secret))
          (mechanism (or (plist-get found :smtp-auth)
                         (car (member (downcase (format "%s" (plist-get found :auth)))
                                      '("xoauth2" "oauthbearer"))))))
      `( :user ,(plist-get found :user)
         :secret ,(if (functionp secret) (funcall secret) secret)
         :mechanism ,(and mechanism (format "%s" mechanism))
         ,@(mapcan (lambda (field)
                     (let ((value (plist-get found field)))
                       (and value (list field (format "%s" value)))))
                   '(:token-url :client-id :client-secret :refresh-token
                     :scope))))))

(defun rs-smtpmail--ask-credentials (event)
  "Ask the user for the credentials that EVENT is about, and answer it."
  (let ((answer (list :error "No password was given"))
        (query (rs-smtpmail--query event)))
    ;; What was given before has not worked.
    (setq rs-smtpmail--unsaved
          (seq-remove (lambda (unsaved) (equal query (cadr unsaved)))
                      rs-smtpmail--unsaved))
    (unwind-protect
        (setq answer
              (condition-case err
                  (let* ((found (rs-smtpmail--stoppably
                                  (rs-smtpmail--prompt event)))
                         (save (plist-get found :save-function)))
                    (setq rs-smtpmail--last-user (plist-get found :user))
                    (when save
                      (push (list (plist-get event :request)
                                  query save)
                            rs-smtpmail--unsaved))
                    (rs-smtpmail--as-answer found))
                (quit (list :error "The question for the password was quit"))
                (error (list :error (error-message-string err)))))
      (rs-smtpmail--answer event answer))))

(defun rs-smtpmail--prompt (event)
  "Return credentials for EVENT from the user, or from where they are by now."
  (let ((auth-source-creation-prompts rs-smtpmail--prompts)
        (rejected (plist-get event :rejected))
        (query (rs-smtpmail--query event)))
    (if (null rejected)
        (car (apply #'auth-source-search
                    :require '(:user :secret) :create t query))
      (auth-source-forget+ :host (plist-get event :host)
                           :port (plist-get event :port))
      (let ((reason (format "Login refused (%s).  "
                            (string-replace
                             "%" "%%" (car (split-string rejected "[\r\n]+"))))))
        (setq auth-source-creation-prompts
              (mapcar (pcase-lambda (`(,key . ,prompt))
                        (cons key (concat reason prompt)))
                      rs-smtpmail--prompts))
        (rs-smtpmail--create query)))))

(defun rs-smtpmail--create (query)
  "Ask for new credentials for QUERY, though there are some already.
A search with :create would find just those that have been rejected."
  (let ((backend (seq-find (lambda (backend)
                             (not (memq (slot-value backend 'create-function)
                                        '(nil ignore))))
                           (mapcar #'auth-source-backend-parse auth-sources))))
    (if backend
        ;; Creating, too, looks for what is there already.
        (let ((auth-sources nil)
              (auth-source-do-cache nil)
              (auth-source-creation-defaults
               (append (and rs-smtpmail--last-user
                            (list (cons 'user rs-smtpmail--last-user)))
                       auth-source-creation-defaults)))
          (car (apply (slot-value backend 'create-function)
                      :backend backend :create t query)))
      (let ((user (or (plist-get query :user)
                      (read-string (format "SMTP user name for %s: "
                                           (plist-get query :host))))))
        (list :user user
              :secret (read-passwd (format "SMTP password for %s@%s: "
                                           user (plist-get query :host))))))))

(defun rs-smtpmail--save-credentials (event)
  "Offer to save what was given for the request of EVENT, which has worked."
  (let ((unsaved (assq (plist-get event :request) rs-smtpmail--unsaved)))
    (when unsaved
      (setq rs-smtpmail--unsaved (delq unsaved rs-smtpmail--unsaved))
      (rs-smtpmail--when-user-is-there
       (lambda (_)
         (rs-smtpmail--stoppably
           (funcall (nth 2 unsaved))))))))

(defun rs-smtpmail--answer-passphrase (event)
  "Answer EVENT, by which the engine asks for a passphrase for gpg."
  (if noninteractive
      (rs-smtpmail--answer event (list :error "Nobody can be asked in batch Emacs"))
    (rs-smtpmail--when-user-is-there #'rs-smtpmail--ask-passphrase event)))

(defun rs-smtpmail--ask-passphrase (event)
  "Ask the user for the passphrase that EVENT is about, and answer it."
  (let ((answer (list :error "No passphrase was given")))
    (unwind-protect
        (condition-case nil
            (setq answer
                  (list :secret
                        (rs-smtpmail--stoppably
                          (read-passwd (format "Passphrase for %s: "
                                               (plist-get event :hint))))))
          (quit nil))
      (rs-smtpmail--answer event answer)
      (when (plist-get answer :secret)
        (clear-string (plist-get answer :secret))))))

(provide 'rs-smtpmail-auth)

;;; rs-smtpmail-auth.el ends here
