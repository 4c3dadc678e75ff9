;;; test-auth.el --- Settings and secrets for the engine  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-engine)

(defun test-authinfo (&rest lines)
  "Return the name of a new authinfo file of LINES."
  (let ((file (test-file "authinfo")))
    (with-temp-file file
      (dolist (line lines)
        (insert line "\n")))
    file))

(defmacro test-with-auth-server (arguments &rest body)
  "Run BODY with a server that needs the user \"joe\" and \"pass word\".
ARGUMENTS are more of them for the server."
  (declare (indent 1))
  `(test-with-server (append '("--tls" "starttls" "--require-auth"
                               "--auth" "joe:pass word")
                             ,arguments)
     (auth-source-forget-all-cached)
     (unwind-protect
         (progn ,@body)
       (setq auth-sources nil))))

;;;; Settings

(ert-deftest test-auth-which-sources-are-the-engines ()
  (let ((rs-smtpmail--lisp-sources nil)
        (home (directory-file-name (expand-file-name "~"))))
    (dolist (case
             `(("~/.authinfo" . ,(concat home "/.authinfo"))
               ("/a/b.gpg" . "/a/b.gpg")
               ((:source "~/.netrc") . ,(concat home "/.netrc"))
               ((:source "/a/b" :host t :port t :user t) . "/a/b")
               ((:source "~/b" :host "x") . (:netrc ,(concat home "/b") :host "x"))
               ((:source "/a/b" :port "smtp" :host t :user "u")
                . (:netrc "/a/b" :port "smtp" :user "u"))
               ((:source "/a/b.json" :host "x") . (lisp 0))
               ((:source "/a/b" :port 25) . (lisp 1))
               ((:source "/a/b" :user ("u" "v")) . (lisp 2))
               ("/a/b.json" . (lisp 3))
               ("/a/b.json.gpg" . (lisp 4))
               ("/a/b.plist" . (lisp 5))
               ("secrets:Login" . (lisp 6))
               (default . (lisp 7))
               (password-store . (lisp 8))
               ((:source (:secrets "Login")) . (lisp 9))
               (macos-keychain-internet . (lisp 10))
               ("macos-keychain-generic:x" . (lisp 11))
               ("/ssh:box:/a/b" . (lisp 12))
               ;; Known by now.
               ("/a/b.json" . (lisp 3))))
      (should (equal (rs-smtpmail--auth-source (car case)) (cdr case))))))

(ert-deftest test-auth-settings ()
  (let ((gnutls-trustfiles '("/etc/mine.pem" "~/ca.pem"))
        (rs-smtpmail-connect-timeout 7)
        (rs-smtpmail-allow-cleartext-auth '("box")))
    (cl-letf (((symbol-function 'gnutls-trustfiles) (lambda () gnutls-trustfiles)))
      (let ((settings (rs-smtpmail--settings)))
        (should (equal (plist-get settings :trust-files)
                       (list "/etc/mine.pem" (expand-file-name "~/ca.pem"))))
        (should (equal (plist-get settings :connect-timeout) 7))
        (should (equal (plist-get settings :cleartext-auth-hosts) '("box")))
        (should (equal (plist-get settings :unconfirmed) 'ask))
        (should-not (plist-get settings :auth-mechanisms)))))
  (let ((smtpmail-auth-supported '(login)))
    (should (equal (plist-get (rs-smtpmail--settings) :auth-mechanisms) '(login)))))

(ert-deftest test-auth-system-trust-files-are-the-engines-own ()
  (let ((gnutls-trustfiles (eval (car (get 'gnutls-trustfiles 'standard-value)) t)))
    (should-not (rs-smtpmail--trust-files))))

;;;; Credentials from files

(ert-deftest test-auth-from-authinfo ()
  (test-with-auth-server nil
    (setq auth-sources
          (list (test-authinfo
                 "machine elsewhere login x password y"
                 (format "machine localhost port %d login joe password \"pass word\""
                         smtpmail-smtp-service))))
    (test-send-synchronously (test-header))
    (should (equal "joe" (plist-get (test-received 1) :user)))))

(ert-deftest test-auth-user-chooses-the-entry ()
  (test-with-auth-server nil
    (setq auth-sources
          (list (test-authinfo "machine localhost login ann password other"
                               "machine localhost login joe password \"pass word\"")))
    (let ((smtpmail-smtp-user "joe"))
      (test-send-synchronously (test-header)))
    (should (equal "joe" (plist-get (test-received 1) :user)))))

(ert-deftest test-auth-server-requiring-authorization ()
  "A server that does not ask for it gets the password at once."
  (test-with-server '("--auth" "joe:pass word")
    (unwind-protect
        (let ((smtpmail-servers-requiring-authorization "\\`local"))
          (setq auth-sources
                (list (test-authinfo "machine localhost login joe password \"pass word\"")))
          (test-send-synchronously (test-header))
          (should (equal "joe" (plist-get (test-received 1) :user))))
      (setq auth-sources nil))))

(ert-deftest test-auth-wrong-password ()
  (test-with-auth-server nil
    (setq auth-sources
          (list (test-authinfo "machine localhost login joe password wrong")))
    (let* ((noninteractive t)
           (text (test-error #'test-send-synchronously (test-header))))
      (should (string-search "localhost" text))
      (should (string-search "535" text))
      (should-not (string-search "wrong" text)))
    (should (equal '(needs-user) (test-states)))
    ;; Corrected by the user.
    (with-temp-file (car auth-sources)
      (insert "machine localhost login joe password \"pass word\"\n"))
    (rs-smtpmail-retry (plist-get (car (rs-smtp-queue-list)) :id))
    (test-wait-for-state)
    (should (= 1 (test-received-count)))))

(ert-deftest test-auth-no-credentials-in-batch ()
  (test-with-auth-server nil
    (let ((noninteractive t))
      (should (string-search "localhost"
                             (test-error #'test-send-synchronously (test-header)))))
    (should (equal '(needs-user) (test-states)))))

;;;; Credentials from Lisp

(ert-deftest test-auth-from-another-backend ()
  "In its place among the others."
  (test-with-auth-server nil
    (let ((json (concat (test-file "secrets") ".json")))
      (with-temp-file json
        (insert (json-encode
                 [((host . "localhost") (user . "joe") (secret . "pass word"))])))
      (setq auth-sources (list (list :source (test-authinfo
                                              "machine x login y password z")
                                     :host "x")
                               json))
      (test-send-synchronously (test-header))
      (should (equal "joe" (plist-get (test-received 1) :user))))))

(defun test-auth-backends (places)
  "Return sources of four kinds, of which those in PLACES have an entry.
The first of PLACES has the right one, the others one for \"eve\"."
  (let ((credentials (lambda (place)
                       (cond ((eql place (car places)) '("joe" "pass word"))
                             ((memql place places) '("eve" "wrong")))))
        (json (concat (test-file "secrets") ".json"))
        (plstore (concat (test-file "secrets") ".plist")))
    (with-temp-file json
      (insert (pcase (funcall credentials 1)
                (`(,user ,secret)
                 (json-encode
                  `[((host . "localhost") (user . ,user) (secret . ,secret))]))
                (_ "[]"))))
    (pcase (funcall credentials 2)
      (`(,user ,secret)
       (require 'plstore)
       (let ((store (plstore-open plstore)))
         (plstore-put store "one" (list :host "localhost" :user user :secret secret
                                           :port (format "%s" smtpmail-smtp-service))
                      nil)
         (plstore-save store)
         (plstore-close store))))
    (list (pcase (funcall credentials 0)
            (`(,user ,secret)
             (test-authinfo (format "machine localhost login %s password \"%s\""
                                    user secret)))
            (_ (test-authinfo "machine elsewhere login x password y")))
          json plstore
          (cons 'test-function (funcall credentials 3)))))

(defun test-auth-function-backend (source)
  "Return a backend for SOURCE, (test-function USER SECRET)."
  (when (eq 'test-function (car-safe source))
    (auth-source-backend
     :source "" :type 'test
     :search-function
     (lambda (&rest _)
       (pcase (cdr source)
         (`(,user ,secret)
          (list (list :user user :secret (lambda () secret)))))))))

(ert-deftest test-auth-backends-are-searched-in-their-order ()
  (let ((auth-source-backend-parser-functions
         (cons #'test-auth-function-backend auth-source-backend-parser-functions)))
    (dolist (places '((0 1 2 3) (1 2 3) (2 3) (3)))
      (dolist (order '((0 1 2 3) (3 2 1 0)))
        (ert-info ((format "%S %S" places order))
          (test-with-auth-server nil
            (let ((sources (test-auth-backends
                            (seq-filter (lambda (place) (memql place places)) order))))
              (setq auth-sources (mapcar (lambda (place) (nth place sources)) order))
              (test-send-synchronously (test-header))
              (should (equal "joe" (plist-get (test-received 1) :user))))))))))

(ert-deftest test-auth-restricted-source ()
  "A source for others only is passed over."
  (test-with-auth-server nil
    (let ((entry "machine localhost login eve password wrong"))
      (setq auth-sources
            (list (list :source (test-authinfo entry) :host "elsewhere")
                  (list :source (test-authinfo entry) :host "localhost" :port "25")
                  (list :source (test-authinfo entry) :host t :user "eve")
                  (list :source (test-authinfo
                                 "machine localhost login joe password \"pass word\"")
                        :host "localhost"
                        :port (format "%s" smtpmail-smtp-service)))))
    (test-send-synchronously (test-header))
    (should (equal "joe" (plist-get (test-received 1) :user)))))

;;;; GnuPG

(defun test-auth-programs-started (sources)
  "Have another Emacs send with SOURCES; return GnuPG's programs that it started."
  (let* ((directory (test-new-directory "bin"))
         (marks (test-file "marks"))
         (process-environment
          (cons (format "PATH=%s:%s" directory (getenv "PATH")) process-environment))
         (auth-sources sources))
    (dolist (name '("gpg" "gpg2" "gpgconf" "gpgsm" "gpg-agent" "gpg-connect-agent"))
      (let ((program (expand-file-name name directory)))
        (with-temp-file program
          (insert "#!/bin/sh\necho " name " >> " marks "\nexit 2\n"))
        (set-file-modes program #o700)))
    (write-region "" nil marks nil 'quiet)
    (test-emacs-output
     '(progn
        (require 'rs-smtpmail)
        (condition-case err
            (with-temp-buffer
              (insert "From: me@example.org\nTo: you@example.com\nSubject: Test\n"
                      mail-header-separator "\nHello\n")
              (rs-smtpmail-send-it))
          (error (message "%s" (error-message-string err))))))
    (delete-dups (split-string (test-bytes marks)))))

(ert-deftest test-auth-gpg-is-started-for-gpg-files-only ()
  (test-with-auth-server nil
    (let* ((rs-smtpmail-spool-directory (test-file "spool"))
           (json (concat (test-file "secrets") ".json"))
           (encrypted (concat (test-authinfo "no OpenPGP at all") ".gpg"))
           (plain (test-authinfo
                   "machine localhost login joe password \"pass word\"")))
      (with-temp-file json (insert "[]"))
      (should-not (test-auth-programs-started
                   (list (concat encrypted "-that-is-not-there.gpg") json plain
                         encrypted)))
      (should (= 1 (test-received-count)))
      (rename-file (string-remove-suffix ".gpg" encrypted) encrypted)
      ;; Found before it is its turn.
      (should-not (test-auth-programs-started (list plain encrypted)))
      (should (= 2 (test-received-count)))
      (should (test-auth-programs-started (list encrypted plain)))
      (should (= 2 (test-received-count))))))

(ert-deftest test-auth-error-in-a-backend ()
  (test-with-auth-server nil
    (let ((auth-source-backend-parser-functions
           (list (lambda (_) (error "Backend is broken")))))
      (setq auth-sources '(broken))
      (should (string-search "Backend is broken"
                             (test-error #'test-send-synchronously (test-header)))))))

(ert-deftest test-auth-a-search-can-be-quit ()
  "From the timer that handles events, too; the message is put off."
  (test-with-auth-server nil
    (let* ((quits 0)
           (searches 0)
           (auth-source-backend-parser-functions
            (list (lambda (_)
                    (auth-source-backend
                     :source "" :type 'slow
                     :search-function
                     (lambda (&rest _)
                       (cl-incf searches)
                       ;; What C-g does.
                       (run-at-time 0.01 nil (lambda () (setq quit-flag t)))
                       (condition-case nil
                           (sink-wait "C-g" #'ignore)
                         (quit (cl-incf quits)
                               (signal 'quit nil))))))))
           (rs-smtpmail-synchronous nil)
           (inhibit-message t)
           (sink-seconds 10)
           warnings)
      (setq auth-sources '(slow))
      (setq warnings
            (test-with-warnings
              (test-send #'rs-smtpmail-send-it (test-header))
              (sink-wait "the end of the search"
                         (lambda () (plist-get (car (rs-smtp-queue-list)) :error)))
              (sink-wait "the event" (lambda () (equal '(pending) (test-states))))
              (test-auth-handle-events)))
      (should (= 1 quits searches))
      (let ((entry (car (rs-smtp-queue-list))))
        (should (string-search "You have stopped the search" (plist-get entry :error)))
        (should (time-less-p nil (plist-get entry :next-try))))
      (should-not (seq-some (lambda (text) (string-search "Error in" text)) warnings)))))

(defun test-auth-token-for-entry (search &rest arguments)
  "Put a token into what SEARCH finds with ARGUMENTS, as auth-source-xoauth2-plugin."
  (mapcar (lambda (found)
            (if (equal "xoauth2" (plist-get found :auth))
                (plist-put found :secret "the-token")
              found))
          (apply search arguments)))

(ert-deftest test-auth-advice-on-auth-source-has-its-say ()
  "Also in what is found in netrc files, which the engine reads by itself else."
  (test-with-auth-server '("--token" "the-token" "--mech" "XOAUTH2")
    (let ((file (test-authinfo
                 (concat "machine localhost login joe auth xoauth2 smtp-auth xoauth2"
                         " auth-url https://a.invalid/ client-id id client-secret s"))))
      (setq auth-sources (list file))
      (should (equal file (rs-smtpmail--auth-source file)))
      (unwind-protect
          (progn
            (advice-add 'auth-source-search-backends :around
                        #'test-auth-token-for-entry)
            (test-send-synchronously (test-header)))
        (advice-remove 'auth-source-search-backends #'test-auth-token-for-entry))
      (should (equal "joe" (plist-get (test-received 1) :user)))
      (should (equal file (rs-smtpmail--auth-source file))))))

;;;; Asking

(defmacro test-interactively (passwords &rest body)
  "Run BODY as in an interactive Emacs whose user types PASSWORDS, one by one.
The variable `prompts' holds what the user was asked."
  (declare (indent 1))
  `(let ((typed ,passwords)
         (noninteractive nil)
         (inhibit-message t)
         prompts)
     (cl-letf (((symbol-function 'read-passwd)
                (lambda (prompt &rest _)
                  (push prompt prompts)
                  (let ((next (pop typed)))
                    (if (eq next 'quit) (signal 'quit nil) next))))
               ((symbol-function 'read-string)
                (lambda (prompt &rest _)
                  (push prompt prompts)
                  "joe")))
       ,@body)))

(defun test-restricted-source ()
  "Return an element of `auth-sources' with an empty file for localhost."
  (list :source (test-authinfo) :host "localhost"))

(ert-deftest test-auth-asks-and-saves-what-worked ()
  (test-with-auth-server nil
    (let* ((source (test-restricted-source))
           (auth-source-save-behavior t))
      (setq auth-sources (list source))
      (test-interactively '("pass word")
        (test-send-synchronously (test-header))
        (should (equal 2 (length prompts)))
        (should (string-prefix-p "SMTP user name for localhost" (cadr prompts)))
        (should (equal "SMTP password for joe@localhost: " (car prompts)))
        (should (equal "joe" (plist-get (test-received 1) :user)))
        (sink-wait "the saved password"
                   (lambda ()
                     (rs-smtpmail--wake)
                     (rs-smtpmail--handle-events)
                     (string-search "pass word" (test-bytes (plist-get source :source)))))
        ;; Not asked again.
        (test-send-synchronously (test-header))
        (should (equal 2 (length prompts)))))))

(ert-deftest test-auth-asks-again-when-rejected ()
  (test-with-auth-server nil
    (let* ((source (test-restricted-source))
           (auth-source-save-behavior t))
      (with-temp-file (plist-get source :source)
        (insert "machine localhost login joe password old\n"))
      (setq auth-sources (list source))
      (test-interactively '("pass word")
        (let ((smtpmail-smtp-user "joe"))
          (test-send-synchronously (test-header)))
        (should (= 1 (length prompts)))
        (should (string-match-p "\\`Login refused (535.*SMTP password for joe@localhost: \\'"
                                (car prompts)))
        (should (= 1 (test-received-count)))
        (sink-wait "the saved password"
                   (lambda ()
                     (rs-smtpmail--wake)
                     (rs-smtpmail--handle-events)
                     (string-search "pass word" (test-bytes (plist-get source :source)))))))))

(ert-deftest test-auth-question-is-quit ()
  (test-with-auth-server nil
    (setq auth-sources (list (test-restricted-source)))
    (test-interactively '(quit)
      (should (string-search "quit"
                             (test-error #'test-send-synchronously (test-header)))))
    (should (equal '(needs-user) (test-states)))))

(ert-deftest test-auth-wrong-password-is-not-saved ()
  (test-with-auth-server nil
    (let ((source (test-restricted-source))
          (auth-source-save-behavior t))
      (setq auth-sources (list source))
      (test-interactively '("wrong" quit)
        (should (test-error #'test-send-synchronously (test-header))))
      (should (equal "" (test-bytes (plist-get source :source)))))))

(defun test-auth-handle-events ()
  "Fetch and handle the engine's events."
  (rs-smtpmail--wake)
  (rs-smtpmail--handle-events))

(defmacro test-auth-send-ten (passwords &rest body)
  "Send ten mails with nobody waiting; evaluate BODY when they are being asked for.
PASSWORDS are as for `test-interactively'."
  (declare (indent 1))
  `(test-with-auth-server nil
     (setq auth-sources (list (test-restricted-source)))
     (test-interactively ,passwords
       (let ((rs-smtpmail-synchronous nil)
             (smtpmail-smtp-user "joe")
             (user-is-there nil))
         (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p)
                    (lambda (_) user-is-there)))
           (dotimes (_ 10)
             (test-send #'rs-smtpmail-send-it (test-header)))
           (sink-wait "messages that need credentials"
                      (lambda ()
                        (test-auth-handle-events)
                        (equal (make-list 10 'needs-credentials) (test-states))))
           (should-not prompts)
           (setq user-is-there t)
           ,@body)))))

(ert-deftest test-auth-ten-messages-ask-once ()
  "They wait visibly meanwhile; a wrong answer costs one more question."
  (test-auth-send-ten '("wrong" "pass word")
    (sink-wait "ten messages"
               (lambda ()
                 (test-auth-handle-events)
                 (= 10 (test-received-count))))
    (should (= 2 (length prompts)))
    (should (string-prefix-p "Login refused" (car prompts)))))

(ert-deftest test-auth-ten-messages-are-quit-once ()
  (test-auth-send-ten '(quit)
    (sink-wait "ten messages that need the user"
               (lambda ()
                 (test-auth-handle-events)
                 (equal (make-list 10 'needs-user) (test-states))))
    (should (= 1 (length prompts)))))

(ert-deftest test-auth-a-refused-password-is-forgotten-everywhere ()
  "By auth-source, and by the engine, which keeps what it was given."
  (test-with-auth-server nil
    (let* ((source (test-restricted-source))
           (query (list :max 1 :host "localhost"
                        :port (format "%s" smtpmail-smtp-service) :user "joe"))
           (smtpmail-smtp-user "joe"))
      (setq auth-sources (list source))
      (with-temp-file (plist-get source :source)
        (insert "machine localhost login joe password old\n"))
      (should (apply #'auth-source-search query))
      (should (auth-source-recall query))
      (test-interactively '("wrong" "pass word")
        (test-send-synchronously (test-header))
        (should-not (auth-source-recall query))
        (should (= 2 (length prompts)))
        (should (= 1 (test-received-count)))
        ;; What was given last is known now.
        (test-send-synchronously (test-header))
        (should (= 2 (length prompts)))
        (should (= 2 (test-received-count)))))))

(ert-deftest test-auth-when-the-user-is-there ()
  (let ((rs-smtpmail--awaited (make-hash-table :test #'equal))
        (num-nonmacro-input-events 7)
        (noninteractive nil)
        (minibuffer nil))
    (cl-letf (((symbol-function 'active-minibuffer-window) (lambda () minibuffer))
              ((symbol-function 'recursion-depth) (lambda () 0))
              ((symbol-function 'this-single-command-keys) (lambda () []))
              ((symbol-function 'input-pending-p) #'ignore))
      ;; In the background: when nothing is typed.
      (should-not (rs-smtpmail--user-is-there-p nil))
      (should-not (rs-smtpmail--user-is-there-p 6))
      (should (rs-smtpmail--user-is-there-p 7))
      (dolist (busy '(executing-kbd-macro defining-kbd-macro isearch-mode
                      cursor-in-echo-area noninteractive))
        (cl-progv (list busy) '(t)
          (should-not (rs-smtpmail--user-is-there-p 7))))
      (cl-letf (((symbol-function 'recursion-depth) (lambda () 1)))
        (should-not (rs-smtpmail--user-is-there-p 7)))
      (cl-letf (((symbol-function 'daemonp) #'always))
        ;; The frame of a daemon, as of batch Emacs, is nobody's.
        (cl-letf (((symbol-function 'terminal-name) (lambda (_) "initial_terminal")))
          (should-not (rs-smtpmail--user-is-there-p 7))
          (should-not (rs-smtpmail--somebody-looks-p)))
        (cl-letf (((symbol-function 'terminal-name) (lambda (_) "/dev/pts/0")))
          (should (rs-smtpmail--user-is-there-p 7))
          (should (rs-smtpmail--somebody-looks-p))))
      ;; Somebody waits for it: at once.
      (puthash "id" 0 rs-smtpmail--awaited)
      (should (rs-smtpmail--user-is-there-p nil))
      (setq minibuffer t)
      (should-not (rs-smtpmail--user-is-there-p 7)))))

(ert-deftest test-auth-questions-wait-for-a-frame ()
  (let (asked after-make-frame-functions)
    (cl-letf (((symbol-function 'rs-smtpmail--somebody-looks-p) #'ignore)
              ((symbol-function 'rs-smtpmail--user-is-there-p) #'ignore))
      (rs-smtpmail--when-user-is-there (lambda (text) (setq asked text)) "question")
      (should (= 1 (length after-make-frame-functions))))
    (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p) #'always))
      (run-hook-with-args 'after-make-frame-functions (selected-frame))
      (should-not after-make-frame-functions)
      (sink-wait "the question" (lambda () (equal asked "question"))))))

(ert-deftest test-auth-questions-wait-for-the-user ()
  (let (asked)
    (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p) (lambda (_) asked)))
      (rs-smtpmail--when-user-is-there (lambda (text) (setq asked (list text asked)))
                                       "question")
      (should-not asked)
      (setq asked 'idle)
      (sink-wait "the question" (lambda () (equal asked '("question" idle)))))))

(provide 'test-auth)

;;; test-auth.el ends here
