;;; test-clients-message.el --- Sending from message.el  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'clients)

(defmacro test-with-message (fields &rest body)
  "Run BODY in a new Message buffer with the header FIELDS, a list of lines."
  (declare (indent 1) (debug t))
  `(let ((message-kill-buffer-on-exit t))
     (test-with-composed buffer (message-mail "you@example.com" "Test")
       (message-goto-eoh)
       (dolist (field ,fields)
         (insert field "\n"))
       (message-goto-body)
       (insert "Dear friends, with many greetings from everybody here: Grüße\n")
       ,@body)))

(defconst test-greetings "everybody here: Gr=C3=BC=C3=9Fe\r\n"
  "How the body of such a mail ends on the line.")

(defun test-new-mbox ()
  "Make an empty file for copies of mail, and return its name."
  (let ((file (test-file "fcc")))
    (write-region "" nil file nil 'silent)
    file))

(test-client test-clients-message-send ("Message" "Send")
  (test-each-way
    (let (sent)
      (test-with-message '("Cc: her@example.com")
        (add-hook 'message-sent-hook (lambda () (setq sent t)) nil t)
        (message-send-and-exit)
        (should sent)
        (should-not (buffer-live-p buffer))))
    (test-lacks (test-arrived 1 '("you@example.com" "her@example.com")
                              "Subject: Test\r\n" test-greetings)
                "text follows")))

(test-client test-clients-message-failure-keeps-the-buffer ("Message" "Failure")
  (let ((fcc (test-new-mbox)))
    (test-with-refusal
      (test-with-message (list (concat "Fcc: " fcc))
        (test-refused (message-send-and-exit))
        (should (buffer-live-p buffer))
        (should (buffer-modified-p))
        (should (string-search "Grüße" (buffer-string)))
        (should-not message-sent-message-via)
        (should (equal "" (test-bytes fcc)))))))

(test-client test-clients-message-failure-before-acceptance ("Message" "Failure")
  (test-each-way
    (test-with-message '("Cc: a@x.org b@x.org")
      ;; Whatever Emacs itself has to say about such an address.
      (cl-letf (((symbol-function 'y-or-n-p) #'always)
                ((symbol-function 'yes-or-no-p) #'always))
        (should-error (message-send-and-exit)))
      (should (buffer-live-p buffer))
      (should (buffer-modified-p)))
    (should-not (test-states))
    (should (= 0 (test-received-count)))))

(test-client test-clients-message-failure-is-told-later ("Message" "Failure")
  (test-with-server (test-script '(:stage "rcpt" :reply "550 5.1.1 No such user"))
    (test-with-mode
      (let ((warnings (test-with-warnings
                        (test-with-message nil
                          (message-send-and-exit)
                          (should-not (buffer-live-p buffer)))
                        (test-wait-for-state 'failed)
                        (rs-smtpmail--wake)
                        (rs-smtpmail--handle-events))))
        (should (= 1 (length warnings)))
        (should (string-search "No such user" (car warnings)))
        (should (string-search test-greetings
                               (rs-smtp-queue-message
                                (plist-get (car (rs-smtp-queue-list)) :id))))))))

(test-client test-clients-message-bcc ("Message" "Bcc")
  (test-each-way
    (test-with-message '("Bcc: secret@example.net")
      (message-send-and-exit))
    (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net"))
                "secret" "Bcc")))

(test-client test-clients-message-fcc ("Message" "Copy")
  (test-each-way
    (let ((fcc (test-new-mbox)))
      (test-with-message (list (concat "Fcc: " fcc))
        (message-send-and-exit))
      (test-lacks (test-arrived 1 '("you@example.com")) "Fcc")
      (should (string-search "Subject: Test" (test-bytes fcc))))))

(test-client test-clients-message-resend ("Message" "Resend")
  (test-each-way
    (with-temp-buffer
      (insert "From: friend@example.net\nTo: me@example.org\n"
              "Cc: other@example.net\nSubject: Old\nMIME-Version: 1.0\n"
              "Content-Type: text/plain; charset=utf-8\n"
              "Content-Transfer-Encoding: 8bit\n\nGr"
              (decode-coding-string "\303\274\303\237" 'utf-8) "e\n")
      (message-resend "new@example.com"))
    (test-arrived 1 '("new@example.com")
                  "Resent-To: new@example.com" "Resent-From: Me <me@example.org>"
                  "\r\nFrom: friend@example.net" "\r\nTo: me@example.org"
                  "Gr\303\274\303\237e\r\n")))

(test-client test-clients-message-resend-refused ("Message" "Resend")
  (test-with-refusal
    (with-temp-buffer
      (insert "From: friend@example.net\nTo: me@example.org\nSubject: Old\n\nHello\n")
      (test-refused (message-resend "new@example.com")))))

(test-client test-clients-message-bounce ("Message" "Resend")
  (test-each-way
    (with-temp-buffer
      (insert "From: postmaster@example.net\nTo: me@example.org\n"
              "Subject: failed\nMIME-Version: 1.0\n"
              "Content-Type: multipart/report; boundary=xx\n\n"
              "--xx\nContent-Type: text/plain\n\nUnknown user\n"
              "--xx\nContent-Type: message/rfc822\n\n"
              "From: Me <me@example.org>\nTo: typo@example.com\nSubject: Again\n"
              "MIME-Version: 1.0\nContent-Type: text/plain\n\nHello\n--xx--\n")
      (test-with-composed buffer (message-bounce)
        (message-send-and-exit)))
    (test-arrived 1 '("typo@example.com") "Subject: Again" "Hello\r\n")))

(test-client test-clients-message-partially ("Message" "Send")
  (test-each-way
    (let ((message-send-mail-partially-limit 1000)
          (body (mapconcat (lambda (number) (format "line %d\n" number))
                           (number-sequence 1 300) "")))
      (cl-letf (((symbol-function 'message-talkative-question) #'always))
        (test-with-message nil
          (message-goto-body)
          (delete-region (point) (point-max))
          (insert body)
          (message-send-and-exit)))
      (test-wait-for-state)
      (should (< 2 (test-received-count)))
      (let (parts)
        (dotimes (index (test-received-count))
          (let* ((received (test-received (1+ index)))
                 (bytes (plist-get received :bytes)))
            (should (equal '("you@example.com") (plist-get received :recipients)))
            (should (string-match "message/partial.*number=\\([0-9]+\\)"
                                  (replace-regexp-in-string "\r\n[ \t]+" " " bytes)))
            (push (cons (string-to-number
                         (match-string 1 (replace-regexp-in-string
                                          "\r\n[ \t]+" " " bytes)))
                        (substring bytes (+ 4 (string-search "\r\n\r\n" bytes))))
                  parts)))
        (should (string-search
                 (string-replace "\n" "\r\n" body)
                 (mapconcat #'cdr
                            (sort parts (lambda (a b) (< (car a) (car b))))
                            "")))))))

(test-client test-clients-message-queue ("Message" "Queue")
  (test-with-server nil
    (test-with-mode
      (let ((fcc (test-new-mbox)))
        (test-queue-and-flush
          (test-with-message (list (concat "Fcc: " fcc) "Bcc: secret@example.net")
            (message-send-and-exit)
            (should-not (buffer-live-p buffer))))
        (should (string-search "Subject: Test" (test-bytes fcc)))
        (test-lacks (test-arrived 1 '("you@example.com" "secret@example.net")
                                  test-greetings)
                    "secret")))))

(test-client test-clients-message-flush-by-the-function ("Message" "Flush")
  (test-each-way
    (let ((smtpmail-queue-mail t))
      (dotimes (number 3)
        (test-with-message (list (format "Cc: c%d@example.com" number))
          (message-send-and-exit))))
    (should (= 3 (test-queued)))
    (rs-smtpmail-send-queued-mail)
    (should (= 0 (test-queued)))
    (test-wait-for-state)
    (should (= 3 (test-received-count)))))

(test-client test-clients-message-flush-refused ("Message" "Flush")
  (test-with-refusal
    (let ((smtpmail-queue-mail t))
      (test-with-message nil
        (message-send-and-exit)))
    (test-refused (smtpmail-send-queued-mail))
    (should (= 0 (test-queued)))))

(test-client test-clients-message-auto-saved-draft ("Message" "Draft")
  (let ((message-auto-save-directory (test-new-directory "drafts")))
    (cl-flet ((drafts () (directory-files message-auto-save-directory nil "\\`[^.]")))
      (test-with-refusal
        (test-with-message nil
          (do-auto-save t)
          (should (drafts))
          (test-refused (message-send-and-exit))
          (should (drafts))
          (process-send-string test-server
                               (format "script %s\n" (cadr (test-script))))
          (test-empty-spool)
          (message-send-and-exit)
          (test-arrived 1 '("you@example.com"))
          (should-not (drafts)))))))

;;;; Accounts

(defmacro test-with-elsewhere (&rest body)
  "Run BODY with smtpmail's options set for another server than the test's.
The variable `port' is the test server's."
  (declare (indent 0) (debug t))
  `(let ((port smtpmail-smtp-service)
         (smtpmail-smtp-server "nowhere.invalid")
         (smtpmail-smtp-service 1))
     ,@body))

(test-client test-clients-message-smtp-method ("Message" "Account")
  (test-with-server nil
    (test-with-mode
      (test-with-elsewhere
        (test-with-message (list (format "X-Message-SMTP-Method: smtp localhost %d"
                                         port))
          (message-send-and-exit)))
      (test-lacks (test-arrived 1 '("you@example.com")) "SMTP-Method" "localhost"))))

(test-client test-clients-message-smtp-method-and-queue ("Message" "Account")
  "The account is stored with the mail."
  (test-with-server nil
    (test-with-mode
      (test-with-elsewhere
        (test-queue-and-flush
          (test-with-message (list (format "X-Message-SMTP-Method: smtp localhost %d"
                                           port))
            (message-send-and-exit))))
      (test-arrived 1 '("you@example.com")))))

(test-client test-clients-message-smtp-method-with-user ("Message" "Account")
  (let ((authinfo (test-file "authinfo")))
    (with-temp-file authinfo
      (insert "machine localhost login first password wrong\n"
              "machine localhost login joe password right\n"))
    (test-with-server '("--require-auth" "--auth" "joe:right")
      (let ((auth-sources (list authinfo)))
        (auth-source-forget-all-cached)
        (test-with-mode
          (test-with-elsewhere
            (test-with-message
                (list (format "X-Message-SMTP-Method: smtp localhost %d joe" port))
              (message-send-and-exit))))
        (should (equal "joe"
                       (plist-get (test-arrived 1 '("you@example.com")) :user)))))))

(test-client test-clients-message-smtp-method-without-port ("Message" "Account")
  (test-with-server nil
    (test-with-mode
      (let ((smtpmail-smtp-server "nowhere.invalid"))
        (test-with-message '("X-Message-SMTP-Method: smtp localhost")
          (message-send-and-exit)))
      (test-arrived 1 '("you@example.com")))))

(defun test-server-of-method (method)
  "Return the server, a plist, of a mail sent with METHOD."
  (test-with-mode
    (test-with-message (list (concat "X-Message-SMTP-Method: " method))
      (test-with-warnings (message-send-and-exit)))
    (let* ((server (plist-get (car (rs-smtp-queue-list)) :server))
           (smtpmail-smtp-service (plist-get server :port)))
      (test-empty-spool)
      server)))

(test-client test-clients-message-smtp-method-forms ("Message" "Account")
  ;; A label too long for the resolver to ask anybody.
  (let ((host (concat (make-string 64 ?x) ".invalid"))
        (smtpmail-smtp-user "me")
        (smtpmail-smtp-service 1)
        (smtpmail-stream-type 'starttls))
    (pcase-dolist (`(,method ,port ,user ,stream-type)
                   '(("smtp %s submission" "submission" "me" starttls)
                     ("smtp %s submission you" "submission" "you" starttls)
                     ("smtp %s 465 you" 465 "you" ssl)
                     ("smtp %s 587" 587 "me" starttls)
                     ("smtp %s" 1 "me" starttls)))
      (ert-info (method)
        (let ((server (test-server-of-method (format method host))))
          (should (equal host (plist-get server :host)))
          (should (equal port (plist-get server :port)))
          (should (equal user (plist-get server :user)))
          (should (eq stream-type (plist-get server :stream-type))))))))

(test-client test-clients-message-smtp-method-bad ("Message" "Account")
  (test-with-server nil
    (test-with-mode
      (dolist (method '("smtp" "pigeon localhost"))
        (test-with-message (list (concat "X-Message-SMTP-Method: " method))
          (should-error (message-send-and-exit))
          (should (buffer-live-p buffer))))
      (should-not (test-states))
      (should (= 0 (test-received-count))))))

(test-client test-clients-message-server-alist ("Message" "Account")
  (skip-unless (boundp 'message-server-alist))
  (test-with-server nil
    (test-with-mode
      (test-with-elsewhere
        (with-suppressed-warnings ((lexical message-server-alist))
          (defvar message-server-alist)
          (let ((message-server-alist
                 `(("other@example.net" . "smtp nowhere.invalid 1")
                   ("ME@example.org" . ,(format "smtp localhost %d" port)))))
            (test-with-message nil
              (message-send-and-exit)))))
      (test-arrived 1 '("you@example.com")))))

(provide 'test-clients-message)

;;; test-clients-message.el ends here
