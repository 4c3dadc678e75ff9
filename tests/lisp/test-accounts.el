;;; test-accounts.el --- The server that the sender chooses  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-accounts)
(require 'rs-smtpmail-queue)

(defmacro test-with-accounts (accounts &rest body)
  "Run BODY with ACCOUNTS, and a server that smtpmail's options do not name.
The variable `port' is the server's port."
  (declare (indent 1) (debug t))
  `(test-with-server nil
     (let ((port smtpmail-smtp-service))
       (test-with-defaults '((smtpmail-smtp-server . "nowhere.invalid")
                             (smtpmail-smtp-service . 9))
         (let ((rs-smtpmail-accounts ,accounts)
               (rs-smtpmail-synchronous t))
           (ignore port)
           ,@body)))))

(defmacro test-with-defaults (values &rest body)
  "Run BODY with the options in the alist VALUES set as by a user's init file."
  (declare (indent 1) (debug t))
  `(test-call-with-defaults ,values (lambda () ,@body)))

(defun test-call-with-defaults (values function)
  "Call FUNCTION with the options in the alist VALUES set globally.
What the helper has let-bound counts as set, too."
  (let* ((options '(smtpmail-smtp-server smtpmail-smtp-service
                    smtpmail-stream-type smtpmail-smtp-user))
         (before (mapcar #'default-toplevel-value options)))
    (unwind-protect
        (cl-progv (mapcar #'car values) (mapcar #'cdr values)
          (dolist (option options)
            (set-default-toplevel-value option (symbol-value option)))
          (funcall function))
      (cl-mapc #'set-default-toplevel-value options before))))

(defun test-local (port &rest settings)
  "Return an account for the server at PORT with SETTINGS."
  (append (list :server "localhost" :port port) settings))

;;;; Which account

(ert-deftest test-accounts-the-first-that-fits ()
  (let ((rs-smtpmail-accounts
         `(("Me@Example.org" :user "address")
           (,(lambda () (save-excursion
                          (goto-char (point-min))
                          (search-forward "X-Mood: bad" nil t)))
            :user "predicate")
           ("*@example.org" :user "domain")
           ("me@example.org" :user "never")
           (always :user "rest"))))
    (cl-letf (((symbol-function 'always) (lambda (&rest _) t)))
      (pcase-dolist (`(,user . ,header)
                     '(("address" "From: Me <me@example.org>")
                       ("address" "From: ME@EXAMPLE.ORG" "X-Mood: bad")
                       ("predicate" "From: you@example.org" "X-Mood: bad")
                       ("domain" "From: you@example.org")
                       ("rest" "From: you@sub.example.org")
                       ("rest" "From: example.org@example.com")
                       ;; Nobody: `user-mail-address'.
                       ("address" "To: a@x.org")
                       ("address" "From: ")
                       ;; As for the envelope.
                       ("rest" "From: a@x.org, me@example.org")
                       ("address" "From: a@x.org, b@x.org" "Sender: me@example.org")
                       ("rest" "From: a@x.org" "Sender: me@example.org")
                       ("address" "From: a@x.org" "Resent-From: me@example.org"
                        "Resent-To: b@x.org")
                       ("rest" "From: me@example.org" "Resent-From: a@x.org"
                        "Resent-Cc: b@x.org")))
        (with-temp-buffer
          (test-insert-mail header "From: me@example.org\n")
          (should (equal (list :user user) (rs-smtpmail--account-of-mail))))))))

(ert-deftest test-accounts-none-fits ()
  (let ((rs-smtpmail-accounts '(("you@example.org" :user "you"))))
    (test-with-server nil
      (test-send-synchronously (test-header))
      (should (= 1 (test-received-count))))))

(ert-deftest test-accounts-unknown-setting ()
  (let ((rs-smtpmail-accounts '(("me@example.org" :server "localhost" :prot 25))))
    (let ((text (test-error #'test-send-synchronously (test-header))))
      (should (string-search "me@example.org" text))
      (should (string-search ":prot" text)))))

(ert-deftest test-accounts-broken-predicate ()
  "The mail does not go the wrong way."
  (let ((rs-smtpmail-accounts `((,(lambda () (error "Broken")) :server "localhost"))))
    (test-with-server nil
      (should (string-search "Broken"
                             (test-error #'test-send-synchronously (test-header))))
      (should (= 0 (test-received-count))))))

;;;; What an account says

(ert-deftest test-accounts-two ()
  "As in the manual."
  (test-with-accounts nil
    (let ((other-port port)
          (other-mailbox test-mailbox))
      (test-with-server nil
        (let ((home-port smtpmail-smtp-service))
          (test-with-defaults '((smtpmail-smtp-server . "nowhere.invalid"))
            (setq rs-smtpmail-accounts
                  `(("me@home.org" ,@(test-local home-port))
                    ("*@work.org" ,@(test-local other-port))))
            (dolist (mode '(mail-mode message-mode))
              (test-send-synchronously (test-header "From: Me <me@home.org>") nil mode)
              (test-send-synchronously (test-header "From: Me <me@work.org>") nil mode))))
        (should (= 2 (test-received-count)))
        (should (equal "me@home.org" (plist-get (test-received 2) :sender))))
      (let ((test-mailbox other-mailbox))
        (should (= 2 (test-received-count)))
        (should (equal "me@work.org" (plist-get (test-received 2) :sender)))))))

(ert-deftest test-accounts-names-given-to-the-server ()
  (test-with-accounts nil
    (cl-letf (((symbol-function 'system-name) (lambda () "box")))
      (pcase-dolist (`(,settings ,ehlo ,sender)
                     '((() "box" "me@example.org")
                       ((:local-domain "example.net") "box.example.net" "me@example.org")
                       ((:ehlo "mail.example.net" :local-domain "example.com"
                         :envelope-from "bounces@example.net")
                        "mail.example.net" "bounces@example.net")
                       ((:envelope-from "") "box" "")))
        (setq rs-smtpmail-accounts `(("*@example.org" ,@(test-local port) ,@settings)))
        (test-send-synchronously (test-header))
        (let ((received (test-received (test-received-count))))
          (should (equal ehlo (plist-get received :helo)))
          (should (equal sender (plist-get received :sender)))
          (should (string-search "From: Me <me@example.org>"
                                 (plist-get received :bytes))))))))

(ert-deftest test-accounts-user-and-stream-type ()
  (test-with-server '("--tls" "implicit" "--require-auth" "--auth" "joe:pass word")
    (let ((auth-sources (list (test-file "authinfo")))
          (port smtpmail-smtp-service))
      (with-temp-file (car auth-sources)
        (insert "machine localhost login ann password wrong\n"
                "machine localhost login joe password \"pass word\"\n"))
      (test-with-defaults '((smtpmail-smtp-server . nil) (smtpmail-smtp-user . "ann"))
        (let ((rs-smtpmail-accounts
               `(("me@example.org" ,@(test-local port :stream-type 'ssl :user "joe")))))
          (test-send-synchronously (test-header)))))
    (should (equal "joe" (plist-get (test-received 1) :user)))))

(ert-deftest test-accounts-what-is-left-out-is-as-the-options-say ()
  (test-with-accounts '(("me@example.org" :server "localhost"))
    (test-with-defaults `((smtpmail-smtp-service . ,port))
      (test-send-synchronously (test-header))
      (should (= 1 (test-received-count))))))

;;;; Who else chooses

(ert-deftest test-accounts-step-back ()
  (test-with-accounts '((always :server "elsewhere.invalid" :ehlo "never"))
    ;; A let-binding.
    (let ((smtpmail-smtp-server "localhost")
          (smtpmail-smtp-service port))
      (test-send-synchronously (test-header)))
    ;; A value local to the buffer.
    (with-temp-buffer
      (mail-mode)
      (setq-local smtpmail-smtp-server "localhost"
                  smtpmail-smtp-service port)
      (test-insert-mail (test-header) "Hello\n")
      (rs-smtpmail-send-it))
    ;; The header.
    (rs-smtpmail-mode 1)
    (unwind-protect
        (test-send #'message-use-send-mail-function
                   (test-header (format "X-Message-SMTP-Method: smtp localhost %d" port))
                   nil #'message-mode)
      (rs-smtpmail-mode -1))
    ;; Advice.
    (let ((advice (lambda (original &rest arguments)
                    (let ((smtpmail-smtp-server "localhost")
                          (smtpmail-smtp-service port))
                      (apply original arguments)))))
      (advice-add 'smtpmail-via-smtp :around advice)
      (unwind-protect
          (test-send-synchronously (test-header))
        (advice-remove 'smtpmail-via-smtp advice)))
    (should (= 4 (test-received-count)))
    (dotimes (number 4)
      (should-not (equal "never" (plist-get (test-received (1+ number)) :helo))))))

(ert-deftest test-accounts-predicate-sees-the-mails-buffer ()
  (test-with-accounts nil
    (let (buffers)
      (setq rs-smtpmail-accounts
            `((,(lambda () (push (current-buffer) buffers) t) ,@(test-local port))))
      (with-temp-buffer
        (mail-mode)
        (test-insert-mail (test-header) "Hello\n")
        (rs-smtpmail-send-it)
        (should (equal (list (current-buffer)) buffers))))
    (should (= 1 (test-received-count)))))

(ert-deftest test-accounts-for-who-calls-smtpmail-via-smtp ()
  "As feedmail does."
  (test-with-accounts nil
    (setq rs-smtpmail-accounts `(("me@example.org" ,@(test-local port))))
    (rs-smtpmail-mode 1)
    (unwind-protect
        (with-temp-buffer
          (insert "From: me@example.org\nTo: a@x.org\n\nHello\n")
          (should-not (smtpmail-via-smtp '("a@x.org") (current-buffer))))
      (rs-smtpmail-mode -1))
    (should (= 1 (test-received-count)))))

(ert-deftest test-accounts-another-mail-while-waiting ()
  "It goes its own way."
  (test-with-server (test-script '(:stage "mail" :hold "gate"))
    (let ((first-port smtpmail-smtp-service)
          (first test-server)
          done)
      (test-with-server nil
        (let ((second-port smtpmail-smtp-service))
          (test-with-defaults nil
            (let ((rs-smtpmail-accounts
                   `(("a@x.org" ,@(test-local first-port :ehlo "first"))
                     ("b@x.org" ,@(test-local second-port)))))
              (run-at-time 0.05 nil
                           (lambda ()
                             (test-send-synchronously (test-header "From: b@x.org"))
                             (setq done t)
                             (process-send-string first "release gate\n")))
              (test-send-synchronously (test-header "From: a@x.org")))))
        (should done)
        (should (equal "b@x.org" (plist-get (test-received 1) :sender)))
        (should-not (equal "first" (plist-get (test-received 1) :helo)))))
    (should (equal "a@x.org" (plist-get (test-received 1) :sender)))))

;;;; The queue

(defun test-flush-queue ()
  "Send queued mail and wait."
  (let ((rs-smtpmail-synchronous t))
    (rs-smtpmail-send-queued-mail)))

(ert-deftest test-accounts-queued-with-its-server ()
  (test-with-accounts nil
    (setq rs-smtpmail-accounts
          `(("me@example.org" ,@(test-local port :ehlo "me.example.net"
                                            :envelope-from "bounces@example.net"))))
    (let ((smtpmail-queue-mail t))
      (test-send-synchronously (test-header)))
    (should-not smtpmail-store-queue-variables)
    (should (equal "nowhere.invalid" smtpmail-smtp-server))
    ;; Other settings now, or none: it keeps its server.
    (let ((account (car rs-smtpmail-accounts)))
      (dolist (accounts (list nil (list account)
                              '(("me@example.org" :server "elsewhere.invalid"
                                 :ehlo "never"))))
        (let ((files (directory-files smtpmail-queue-dir t "\\`2")))
          (dolist (file files)
            (copy-file file (concat file ".bak")))
          (let ((rs-smtpmail-accounts accounts))
            (test-flush-queue))
          (dolist (file files)
            (rename-file (concat file ".bak") file)))))
    (should (equal '("bounces@example.net" "me@example.org" "me@example.org")
                   (sort (mapcar (lambda (number)
                                   (plist-get (test-received number) :sender))
                                 '(1 2 3))
                         #'string<)))
    (should (equal "me.example.net" (plist-get (test-received 2) :helo)))
    (should-not (equal "never" (plist-get (test-received 3) :helo)))))

(ert-deftest test-accounts-queued-without-a-server ()
  "By smtpmail, say."
  (test-with-accounts nil
    (let ((smtpmail-queue-mail t))
      (test-send #'smtpmail-send-it (test-header)))
    (setq rs-smtpmail-accounts `(("me@example.org" ,@(test-local port :ehlo "me.net"))))
    (test-flush-queue)
    (should (equal "me.net" (plist-get (test-received 1) :helo)))))

(ert-deftest test-accounts-server-to-check ()
  (test-with-accounts '(("me@example.org" :server "mine" :port 587 :ehlo "me.net")
                        ("you@example.org" :server "yours"))
    (let ((server (rs-smtpmail--server-here)))
      (should (equal '("mine" 587 "me.net")
                     (list (plist-get server :host) (plist-get server :port)
                           (plist-get server :helo)))))
    (with-temp-buffer
      (mail-mode)
      (test-insert-mail (test-header "From: you@example.org") "Hello\n")
      (should (equal "yours" (plist-get (rs-smtpmail--server-here) :host))))))

(provide 'test-accounts)

;;; test-accounts.el ends here
