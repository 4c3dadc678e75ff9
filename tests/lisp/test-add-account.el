;;; test-add-account.el --- Settings found, checked and saved  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-add-account)

;;;; A name server

(defun test-dns-name (name)
  "Return NAME as it is in a DNS message."
  (concat (mapconcat (lambda (label) (concat (string (length label)) label))
                     (split-string name "\\." t)
                     "")
          "\0"))

(defun test-dns-numbers (&rest numbers)
  "Return NUMBERS as 16 bits each, in the network's order."
  (mapconcat (lambda (number) (unibyte-string (ash number -8) (logand number 255)))
             numbers ""))

(defun test-dns-record (data)
  "Return the type and the bytes of a record of DATA.
That is (srv PRIORITY WEIGHT PORT TARGET) or (mx PREFERENCE NAME)."
  (pcase data
    (`(srv ,priority ,weight ,port ,target)
     (cons 33 (concat (test-dns-numbers priority weight port) (test-dns-name target))))
    (`(mx ,preference ,name)
     (cons 15 (concat (test-dns-numbers preference) (test-dns-name name))))))

(defun test-dns-reply (query zone)
  "Return the reply to QUERY, both bytes, from ZONE, an alist of names and data."
  (let* ((question (substring query 12))
         (type (aref question (- (length question) 3)))
         (records (seq-filter
                   (lambda (record) (= type (car record)))
                   (cl-loop for (name . data) in zone
                            when (string-prefix-p (test-dns-name name) question)
                            collect (test-dns-record data)))))
    (concat (substring query 0 2)
            (test-dns-numbers #x8180 1 (length records) 0 0)
            question
            (mapconcat (pcase-lambda (`(,type . ,bytes))
                         ;; The name is that at offset 12.
                         (concat (test-dns-numbers #xc00c type 1 0 60 (length bytes))
                                 bytes))
                       records ""))))

(defun test-call-with-dns (zone function)
  "Call FUNCTION while a name server on a port of its own knows ZONE.
If ZONE is `silent', it never answers."
  (let* ((real (symbol-function 'make-network-process))
         (server (make-network-process
                  :name "dns-server" :server t :type 'datagram :noquery t
                  :host "127.0.0.1" :service t :family 'ipv4 :coding 'binary
                  :filter (lambda (process query)
                            (unless (eq zone 'silent)
                              (process-send-string process
                                                   (test-dns-reply query zone))))))
         (port (process-contact server :service))
         (dns-servers '("127.0.0.1"))
         (dns-servers-valid-for-interfaces t))
    (unwind-protect
        ;; dns.el knows no port but the usual one.
        (cl-letf (((symbol-function 'make-network-process)
                   (lambda (&rest arguments)
                     (apply real (if (equal "domain" (plist-get arguments :service))
                                     (plist-put (copy-sequence arguments)
                                                :service port)
                                   arguments)))))
          (funcall function))
      (delete-process server))))

(defmacro test-with-dns (zone &rest body)
  "Run BODY while a name server knows ZONE, see `test-call-with-dns'."
  (declare (indent 1) (debug t))
  `(test-call-with-dns ,zone (lambda () ,@body)))

(defun test-proposals (domain zone)
  "Return the servers, ports and stream types proposed for DOMAIN in ZONE."
  (test-with-dns zone
    (mapcar (lambda (proposal)
              (list (plist-get proposal :server) (plist-get proposal :port)
                    (plist-get proposal :stream-type)))
            (rs-smtpmail--proposals domain))))

;;;; Proposals

(ert-deftest test-add-account-srv-records ()
  (should (equal (test-proposals
                  "Example.org"
                  '(("_submission._tcp.example.org" srv 10 0 587 "mx.example.org")
                    ("_submissions._tcp.example.org" srv 10 1 465 "heavy.example.org")
                    ("_submissions._tcp.example.org" srv 0 9 4650 "first.example.net")
                    ("_imaps._tcp.example.org" srv 0 9 993 "imap.example.org")))
                 '(("first.example.net" 4650 ssl)
                   ("heavy.example.org" 465 ssl)
                   ("mx.example.org" 587 starttls)
                   ("smtp.example.org" 465 ssl)
                   ("mail.example.org" 465 ssl)))))

(ert-deftest test-add-account-no-such-service ()
  (should (equal (test-proposals
                  "example.org" '(("_submissions._tcp.example.org" srv 0 0 0 "")))
                 '(("smtp.example.org" 465 ssl) ("mail.example.org" 465 ssl)))))

(ert-deftest test-add-account-international-domain ()
  (should (equal (caar (test-proposals
                        "exämple.org"
                        '(("_submissions._tcp.xn--exmple-cua.org" srv 0 0 465 "a.org"))))
                 "a.org")))

(ert-deftest test-add-account-providers ()
  (should (equal (car (test-proposals "gmail.com" nil)) '("smtp.gmail.com" 465 ssl)))
  (should (equal (car (test-proposals "example.org"
                                      '(("example.org" mx 10 "elsewhere.net")
                                        ("example.org" mx 5 "x.Mail.Protection.Outlook.com"))))
                 '("smtp.office365.com" 587 starttls)))
  ;; Nobody's domain ends so by chance.
  (should (equal (car (test-proposals "example.org"
                                      '(("example.org" mx 10 "mx.notgoogle.com"))))
                 '("smtp.example.org" 465 ssl))))

(ert-deftest test-add-account-hints ()
  (test-with-dns '(("_submission._tcp.gmail.com" srv 5 0 587 "smtp.gmail.com")
                   ("_submissions._tcp.example.org" srv 0 0 465 "smtp.elsewhere.net")
                   ("_submissions._tcp.example.net" srv 0 0 465 "smtp.example.net"))
    (let ((hint (lambda (domain)
                  (plist-get (car (rs-smtpmail--proposals domain)) :hint))))
      (should (string-search "app password" (funcall hint "gmail.com")))
      (should (string-search "smtp.elsewhere.net is not in example.org"
                             (funcall hint "example.org")))
      (should-not (funcall hint "example.net")))))

(ert-deftest test-add-account-name-server-is-silent ()
  (let ((rs-smtpmail--dns-seconds 0.2))
    (should (equal (test-proposals "example.org" 'silent)
                   '(("smtp.example.org" 465 ssl) ("mail.example.org" 465 ssl))))))

(ert-deftest test-add-account-no-name-server ()
  (cl-letf (((symbol-function 'dns-set-servers) #'ignore))
    (let ((dns-servers nil))
      (should (equal "smtp.example.org"
                     (plist-get (car (rs-smtpmail--proposals "example.org")) :server))))))

(ert-deftest test-add-account-waiting-can-be-quit ()
  (test-with-dns 'silent
    (let ((rs-smtpmail--dns-seconds 600))
      (run-at-time 0.05 nil (lambda () (setq quit-flag t)))
      (should (eq 'quit (condition-case nil
                            (rs-smtpmail--proposals "example.org")
                          (quit 'quit)))))))

(ert-deftest test-add-account-data-of-providers ()
  (let (domains)
    (dolist (provider rs-smtpmail-providers)
      (should (cl-loop for key in provider by #'cddr
                       always (memq key '(:name :domains :mx :server :port
                                          :stream-type :hint))))
      (should (stringp (plist-get provider :name)))
      (should (stringp (plist-get provider :server)))
      (should (or (plist-get provider :domains) (plist-get provider :mx)))
      (should (member (cons (plist-get provider :port) (plist-get provider :stream-type))
                      '((465 . ssl) (587 . starttls) (1025 . starttls))))
      (dolist (domain (plist-get provider :domains))
        (should (equal domain (downcase domain)))
        (should-not (member domain domains))
        (push domain domains)))))

;;;; The command

(defvar test-saved nil "What has been saved by Customize.")

(defmacro test-with-answers (answers &rest body)
  "Run BODY with a user who gives ANSWERS to the questions, one by one.
An answer `default' takes what is offered.  The variable `questions' holds
what was asked, the last first."
  (declare (indent 1) (debug t))
  `(let* ((answers ,answers)
          (rs-smtpmail-accounts nil)
          (user-mail-address "chosen@example.net")
          (send-mail-function 'smtpmail-send-it)
          (test-saved nil)
          (inhibit-message t)
          questions
          (answer (lambda (prompt default)
                    (push prompt questions)
                    (unless answers
                      (error "Nobody expects this question: %s" prompt))
                    (let ((next (pop answers)))
                      (if (eq next 'default) default next)))))
     (cl-letf (((symbol-function 'completing-read)
                (lambda (prompt _ &optional _ _ _ _ default &rest _)
                  (funcall answer prompt default)))
               ((symbol-function 'read-number)
                (lambda (prompt &optional default &rest _)
                  (funcall answer prompt default)))
               ((symbol-function 'read-string)
                (lambda (prompt &optional _ _ default &rest _)
                  (funcall answer prompt default)))
               ((symbol-function 'read-multiple-choice)
                (lambda (prompt choices &rest _)
                  (assq (funcall answer prompt nil) choices)))
               ((symbol-function 'rs-smtpmail--user-is-there-p) #'always)
               ((symbol-function 'customize-set-variable)
                (lambda (variable value &rest _)
                  (set variable value)))
               ((symbol-function 'customize-save-variable)
                (lambda (variable value &rest _)
                  (setq test-saved (append test-saved (list variable value)))
                  (set variable value))))
       ,@body
       (should-not answers))))

(defun test-check-text (server port)
  "Return what the buffer of the check of SERVER at PORT says, and kill it."
  (let ((buffer (get-buffer (format "*check of %s:%d*" server port))))
    (prog1 (with-current-buffer buffer (buffer-string))
      (kill-buffer buffer))))

(ert-deftest test-add-account-from-a-to-z ()
  (test-with-server '("--tls" "starttls")
    (let ((port smtpmail-smtp-service))
      (test-with-dns `(("_submission._tcp.example.org" srv 0 0 ,port "localhost"))
        (test-with-answers '(default default default default ?s)
          (rs-smtpmail-add-account "me@example.org")
          ;; The check is under way, and Emacs waits for nothing.
          (should (= 4 (length questions)))
          (should-not test-saved)
          (sink-wait "the question" (lambda () (= 5 (length questions))))
          (should (string-search "the first mail from me@example.org asks for it"
                                 (car questions)))
          (should (equal `(rs-smtpmail-accounts
                           (("me@example.org" :server "localhost" :port ,port
                             :stream-type starttls :user "me@example.org")))
                         test-saved))
          (let ((text (test-check-text "localhost" port)))
            (should (string-search "localhost is not in example.org" text))
            (should (string-search "no password was tried" text)))
          (should-not rs-smtpmail--account-checks)
          ;; It is good for sending.
          (let ((accounts rs-smtpmail-accounts))
            (should (equal (plist-get (rs-smtpmail--account-of "me@example.org") :port)
                           port))
            (should accounts)))))))

(ert-deftest test-add-account-changed-after-a-failure ()
  (test-with-server nil
    (let ((port smtpmail-smtp-service))
      (test-with-dns '(("_submissions._tcp.example.org" srv 0 0 465 "nowhere.invalid"))
        (test-with-answers `(default default default "joe" ?c
                             ;; The next proposal is the default now.
                             "localhost" ,port "no TLS" "joe" ?s)
          (rs-smtpmail-add-account " me@example.org ")
          (sink-wait "the end" (lambda () test-saved))
          (should (string-search "nowhere.invalid could not be used" (nth 5 questions)))
          (should (string-search "smtp.example.org" (nth 4 questions)))
          (should (equal `(("me@example.org" :server "localhost" :port ,port
                            :stream-type plain :user "joe"))
                         (cadr test-saved)))
          (test-check-text "nowhere.invalid" 465)
          (test-check-text "localhost" port))))))

(ert-deftest test-add-account-given-up ()
  (test-with-dns nil
    (test-with-answers '("nowhere.invalid" 587 default default ?q)
      (rs-smtpmail-add-account "me@example.org")
      (sink-wait "the question" (lambda () (= 5 (length questions))))
      (should (string-search "STARTTLS" (nth 2 questions)))
      (should-not test-saved)
      (test-check-text "nowhere.invalid" 587))))

(ert-deftest test-add-account-order-of-accounts ()
  (test-with-answers nil
    (setq rs-smtpmail-accounts (list (list #'ignore :server "predicate")))
    (rs-smtpmail--use-account "*@x.org" '(:server "domain") t)
    (rs-smtpmail--use-account "me@x.org" '(:server "old") t)
    (rs-smtpmail--use-account "ME@x.org" '(:server "new") t)
    (should (equal '("new" "predicate" "domain")
                   (mapcar (lambda (entry) (plist-get (cdr entry) :server))
                           rs-smtpmail-accounts)))))

(ert-deftest test-add-account-wants-one-address ()
  (dolist (address '("" "me" "a@x.org, b@x.org" "Me <me@x.org>" "me@" "a@@x.org"))
    (should (string-search "is not one mail address"
                           (test-error #'rs-smtpmail-add-account address)))))

(ert-deftest test-add-account-is-saved-by-customize ()
  "In an Emacs of its own, and in force in the next."
  (let ((file (test-file "custom.el")))
    (test-emacs-output
     `(progn (require 'rs-smtpmail-add-account)
             ;; Without an init file, nothing is saved.
             (setq user-init-file ,file)
             (custom-reevaluate-setting 'user-mail-address)
             (rs-smtpmail--use-account "me@x.org" '(:server "mail.x.org") t)
             ;; The first address stays the one that mail is from.
             (rs-smtpmail--use-account "me@y.org" '(:server "mail.y.org") t)))
    (should (equal (concat "((\"me@y.org\" :server \"mail.y.org\")"
                           " (\"me@x.org\" :server \"mail.x.org\"))"
                           " \"me@x.org\" rs-smtpmail-send-it")
                   (test-emacs-output
                    `(progn (load ,file nil t)
                            (require 'rs-smtpmail)
                            (prin1 rs-smtpmail-accounts) (princ " ")
                            (prin1 user-mail-address) (princ " ")
                            (prin1 send-mail-function)))))))

;;;; Without a network

(ert-deftest test-add-account-offline ()
  "It goes on with what it knows, and says what it could not ask."
  (let ((dns-servers '("127.0.0.1"))
        (dns-servers-valid-for-interfaces t))
    (cl-letf (((symbol-function 'process-send-string)
               (lambda (process &rest _)
                 (signal 'file-error (list "Writing to process" "Network is unreachable"
                                           process)))))
      (dolist (case '(("gmail.com" "smtp.gmail.com" "that of Gmail")
                      ("example.org" "smtp.example.org" "a guess")))
        (let ((proposal (car (rs-smtpmail--proposals (car case)))))
          (should (equal (nth 1 case) (plist-get proposal :server)))
          (should (equal (concat (nth 2 case) "; the DNS did not answer")
                         (plist-get proposal :source))))))))

(ert-deftest test-add-account-silence-is-said ()
  (let ((rs-smtpmail--dns-seconds 0.2))
    (test-with-dns 'silent
      (should (string-suffix-p "the DNS did not answer"
                               (plist-get (car (rs-smtpmail--proposals "example.org"))
                                          :source)))))
  (test-with-dns nil
    (should (equal "a guess" (plist-get (car (rs-smtpmail--proposals "example.org"))
                                        :source)))))

;;;; Up to a mail

(defun test-add-account-write-mail ()
  "Write a mail as with \\[compose-mail], and send it."
  (save-window-excursion
    (compose-mail "you@example.com" "First")
    (goto-char (point-max))
    (insert "Hello\n")
    (message-send-and-exit)))

(defmacro test-with-new-user (&rest body)
  "Run BODY as somebody who has not set anything."
  (declare (indent 0) (debug t))
  `(progn
     (setq user-mail-address (eval (car (get 'user-mail-address 'standard-value)) t)
           send-mail-function 'sendmail-query-once)
     (let ((message-send-mail-function #'message--default-send-mail-function)
           (mail-user-agent 'message-user-agent)
           (process-environment (cons "EMAIL" process-environment))
           (message-signature nil))
       ,@body)))

(ert-deftest test-add-account-ends-in-a-mail ()
  (test-with-server '("--tls" "starttls")
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server nil)
          (smtpmail-smtp-service 25))
      (test-with-dns `(("_submission._tcp.example.org" srv 0 0 ,port "localhost"))
        (test-with-answers '(default default default default ?u)
          (test-with-new-user
            (rs-smtpmail-add-account "joe@example.org")
            (sink-wait "the account" (lambda () rs-smtpmail-accounts))
            (should-not test-saved)
            (test-check-text "localhost" port)
            (test-add-account-write-mail)
            (let ((received (test-received 1)))
              (should (equal "joe@example.org" (plist-get received :sender)))
              (should (string-match-p "^From: .*joe@example.org" (plist-get received :bytes))))))))))

(ert-deftest test-add-account-for-all-addresses-is-no-address ()
  (test-with-answers nil
    (test-with-new-user
      (let ((made-up user-mail-address))
        (rs-smtpmail--use-account "*@example.org" '(:server "x") nil)
        (should (equal made-up user-mail-address))
        (should (eq send-mail-function 'rs-smtpmail-send-it))))))

(ert-deftest test-add-account-choices-are-respected ()
  (test-with-answers nil
    (rs-smtpmail--use-account "me@example.org" '(:server "x") t)
    (should (equal "chosen@example.net" user-mail-address))
    (should (eq send-mail-function 'smtpmail-send-it))
    (should (equal '(rs-smtpmail-accounts) (list (car test-saved))))
    (should-not (cddr test-saved)))
  (test-with-answers nil
    (test-with-new-user
      (let ((process-environment (cons "EMAIL=me@example.net" process-environment)))
        (setq user-mail-address "me@example.net")
        (rs-smtpmail--use-account "me@example.org" '(:server "x") t)
        (should (equal "me@example.net" user-mail-address))))))

(ert-deftest test-add-account-says-that-no-password-was-tried ()
  (test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass word")
    (let ((port smtpmail-smtp-service))
      (test-with-dns `(("_submission._tcp.example.org" srv 0 0 ,port "localhost"))
        (test-with-answers '(default default default "joe" ?q)
          (rs-smtpmail-add-account "me@example.org")
          (sink-wait "the question" (lambda () (= 5 (length questions))))
          (should-not (string-search "can be used" (car questions)))
          (should (string-search "no password was tried" (car questions)))
          (test-check-text "localhost" port)
          (should-not rs-smtpmail--untried-checks))
        (let ((auth-sources (list (test-file "authinfo"))))
          (with-temp-file (car auth-sources)
            (insert "machine localhost login joe password \"pass word\"\n"))
          (test-with-answers '(default default default "joe" ?q)
            (rs-smtpmail-add-account "me@example.org")
            (sink-wait "the question" (lambda () (= 5 (length questions))))
            (should (string-search "localhost can be used" (car questions)))
            (test-check-text "localhost" port)))))))

(provide 'test-add-account)

;;; test-add-account.el ends here
