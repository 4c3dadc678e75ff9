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
    (let ((text (test-error #'test-send-synchronously (test-header))))
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
    (should (string-search "localhost"
                           (test-error #'test-send-synchronously (test-header))))
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

(ert-deftest test-auth-error-in-a-backend ()
  (test-with-auth-server nil
    (let ((auth-source-backend-parser-functions
           (list (lambda (_) (error "Backend is broken")))))
      (setq auth-sources '(broken))
      (should (string-search "Backend is broken"
                             (test-error #'test-send-synchronously (test-header)))))))

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
