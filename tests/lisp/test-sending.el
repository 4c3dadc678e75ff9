;;; test-sending.el --- Options, outcomes and what the user is told  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)

;;;; Where options are set

(ert-deftest test-sending-options-local-to-the-mail-buffer ()
  (test-with-server nil
    (let ((port smtpmail-smtp-service))
      (let ((smtpmail-smtp-service 1)
            (smtpmail-smtp-server "nowhere.invalid")
            (rs-smtpmail-synchronous nil))
        (with-temp-buffer
          (mail-mode)
          (setq-local smtpmail-smtp-service port
                      smtpmail-smtp-server "localhost"
                      smtpmail-sendto-domain "example.net"
                      smtpmail-code-conv-from 'iso-8859-1
                      rs-smtpmail-synchronous t)
          (test-insert-mail (test-header "To: root") "Grüße\n")
          (rs-smtpmail-send-it)
          (should (local-variable-p 'smtpmail-smtp-service))
          (should (equal port smtpmail-smtp-service))
          (should (eq smtpmail-code-conv-from 'iso-8859-1)))
        (should (equal 1 smtpmail-smtp-service))
        (should (equal 1 (default-value 'smtpmail-smtp-service)))))
    (let ((received (test-received 1)))
      (should (equal '("root@example.net") (plist-get received :recipients)))
      (should (string-search "Gr\374\337e" (plist-get received :bytes))))))

(ert-deftest test-sending-let-bound-over-buffer-local ()
  "As message.el binds them for X-Message-SMTP-Method."
  (test-with-server nil
    (let ((port smtpmail-smtp-service))
      (with-temp-buffer
        (mail-mode)
        (setq-local smtpmail-smtp-service 1)
        (test-insert-mail (test-header) "Hello\n")
        (let ((smtpmail-smtp-service port)
              (rs-smtpmail-synchronous t))
          (rs-smtpmail-send-it))
        (should (equal 1 smtpmail-smtp-service))))
    (should (= 1 (test-received-count)))))

(ert-deftest test-sending-x-message-smtp-method ()
  (test-with-server nil
    (rs-smtpmail-mode 1)
    (unwind-protect
        (let ((method (format "X-Message-SMTP-Method: smtp localhost %d"
                              smtpmail-smtp-service))
              (smtpmail-smtp-server "nowhere.invalid")
              (smtpmail-smtp-service 1)
              (rs-smtpmail-synchronous t))
          (test-send #'message-use-send-mail-function (test-header method) nil
                     #'message-mode))
      (rs-smtpmail-mode -1))
    (should-not (string-search "SMTP-Method" (plist-get (test-received 1) :bytes)))))

(ert-deftest test-sending-users-advice-picks-the-server ()
  (test-with-server nil
    (let* ((port smtpmail-smtp-service)
           (advice (lambda (original &rest arguments)
                     (let ((smtpmail-smtp-server "localhost")
                           (smtpmail-smtp-service port))
                       (apply original arguments))))
           (smtpmail-smtp-server nil)
           (smtpmail-smtp-service 1))
      (advice-add 'smtpmail-via-smtp :around advice)
      (unwind-protect
          (test-send-synchronously (test-header))
        (advice-remove 'smtpmail-via-smtp advice)))
    (should (= 1 (test-received-count)))))

(ert-deftest test-sending-entry-keeps-its-server ()
  "A later change of settings reroutes nothing."
  (test-with-server (test-script '(:stage "greeting" :hold "gate"))
    (let ((rs-smtpmail-synchronous nil))
      (test-send #'rs-smtpmail-send-it (test-header)))
    (let ((smtpmail-smtp-service 1)
          (server (plist-get (car (rs-smtp-queue-list)) :server)))
      (should (equal (plist-get server :port) (sink-port test-server)))
      (process-send-string test-server "release gate\n")
      (test-received 1)
      (test-wait-for-state))))

;;;; Synchronous failures

(defun test-failure (&rest parts)
  "Return the error of sending synchronously; all PARTS must be in it.
The message must still be in the spool."
  (let ((text (test-error #'test-send-synchronously (test-header))))
    (ert-info (text :prefix "Error: ")
      (should (string-prefix-p "Sending failed: " text))
      (dolist (part parts)
        (should (string-search part text)))
      (should (string-search "kept in" text))
      (should (rs-smtp-queue-list))
      (test-empty-spool))))

(ert-deftest test-sending-unknown-host ()
  ;; A label too long for the resolver to ask anybody.
  (let ((smtpmail-smtp-server (concat (make-string 64 ?x) ".invalid"))
        (smtpmail-smtp-service 25))
    (test-failure "x.invalid:25")))

(ert-deftest test-sending-refused-port ()
  (test-with-server nil
    (delete-process test-server)
    (test-failure (format "localhost:%d" smtpmail-smtp-service) "refused")))

(ert-deftest test-sending-no-starttls-when-required ()
  (test-with-server nil
    (let ((smtpmail-stream-type 'starttls))
      (test-failure "localhost" "STARTTLS"))
    (should (= 0 (test-received-count)))))

(ert-deftest test-sending-untrusted-certificate ()
  (dolist (kind '("good" "self-signed" "expired" "wrong-host"))
    (ert-info (kind)
      (test-with-server (list "--tls" "starttls" "--cert" kind)
        (let ((gnutls-trustfiles (if (equal kind "good") nil gnutls-trustfiles))
              (smtpmail-stream-type 'starttls)
              ;; Else the user is asked; see test-tls.el.
              (noninteractive t))
          (test-failure "localhost" "TLS"))
        (should (= 0 (test-received-count)))))))

(ert-deftest test-sending-all-recipients-refused ()
  (test-with-server (test-script '(:stage "rcpt" :reply "550 5.1.1 No such user"))
    (test-failure "RCPT" "550 5.1.1 No such user")
    (should (= 0 (test-received-count)))))

(ert-deftest test-sending-one-of-two-refused ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad@"
                                   :reply "550 5.1.1 No such user"))
    (let ((text (test-error #'test-send-synchronously
                            (test-header "To: bad@x.org, good@x.org"))))
      (should (string-search "550 5.1.1 No such user" text))
      (should (string-search "accepted for good@x.org" text)))
    (should (equal '("good@x.org") (plist-get (test-received 1) :recipients)))
    (should (equal '((failed . "bad@x.org") (accepted . "good@x.org"))
                   (mapcar (lambda (recipient)
                             (cons (plist-get recipient :state)
                                   (plist-get recipient :address)))
                           (plist-get (car (rs-smtp-queue-list)) :recipients))))))

(ert-deftest test-sending-hanging-server ()
  (dolist (stage '("greeting" "ehlo" "starttls" "tls-handshake" "mail" "rcpt" "data"))
    (ert-info (stage)
      (test-with-server (append '("--tls" "starttls" "--no-ext" "CHUNKING")
                                (test-script `(:stage ,stage :end "hang")))
        (let ((rs-smtpmail-reply-timeout 0.3)
              (rs-smtpmail-connect-timeout 5))
          (test-failure "localhost"))
        (should (= 0 (test-received-count)))))))

(ert-deftest test-sending-line-cut-after-the-last-byte ()
  (test-with-server (test-script '(:stage "final" :end "close"))
    (test-failure "The server may have it")))

(ert-deftest test-sending-failure-may-name-the-auth-command ()
  "Where smtpmail would cut its text off."
  (test-with-server (append '("--require-auth")
                            (test-script '(:stage "mail" :reply "550 AUTH is not for you")))
    (test-failure "AUTH is not for you")))

;;;; Asynchronous outcomes

(defmacro test-with-outcomes (&rest body)
  "Run BODY with the variables `sent' and `failed' collecting entries."
  (declare (indent 0))
  `(let* (sent failed
          (rs-smtpmail-synchronous nil)
          (rs-smtpmail-sent-functions (list (lambda (entry) (push entry sent))))
          (rs-smtpmail-failed-functions (list (lambda (entry) (push entry failed)))))
     (ignore sent failed)
     ,@body))

(ert-deftest test-sending-asynchronously ()
  (test-with-server (test-script '(:stage "greeting" :hold "gate"))
    (test-with-outcomes
      (test-send #'rs-smtpmail-send-it
                 (test-header "To: a@x.org, b@y.org" "Subject: Grüße"))
      (should-not sent)
      (should (= 1 (length (rs-smtp-queue-list))))
      (process-send-string test-server "release gate\n")
      (ert-with-message-capture messages
        (sink-wait "the outcome" (lambda () sent))
        (should (string-search "Sent to a@x.org, b@y.org (Grüße)" messages)))
      (should (equal "me@example.org" (plist-get (car sent) :sender)))
      (should-not failed)
      (should-not (rs-smtp-queue-list)))))

(ert-deftest test-sending-asynchronous-failure-is-visible ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad@"
                                   :reply ("550 5.1.1 No such user" "really")))
    (test-with-outcomes
      (let ((warnings
             (test-with-warnings
               (test-send #'rs-smtpmail-send-it (test-header "To: bad@x.org, b@y.org"))
               (sink-wait "the outcome" (lambda () failed)))))
        (should (= 1 (length warnings)))
        (dolist (part '("Not sent to bad@x.org (Test)" "really"
                        "accepted for b@y.org" "M-x rs-smtpmail-retry"))
          (should (string-search part (car warnings)))))
      (should-not sent)
      (should (equal '(failed) (test-states)))
      ;; The user has had the server corrected.
      (process-send-string test-server
                           (format "script %s\n" (cadr (test-script))))
      (rs-smtpmail-retry (plist-get (car failed) :id))
      (sink-wait "the outcome" (lambda () sent))
      (should (equal '("bad@x.org") (plist-get (test-received 2) :recipients))))))

(ert-deftest test-sending-deferral-is-told-once ()
  (test-with-server (test-script '(:stage "mail" :reply "451 4.7.1 Greylisted"))
    (test-with-outcomes
      (let ((warnings
             (test-with-warnings
               (test-send #'rs-smtpmail-send-it (test-header))
               (dotimes (attempt 2)
                 (sink-wait "an attempt"
                            (lambda ()
                              (let ((entry (car (rs-smtp-queue-list))))
                                (and (eq 'pending (plist-get entry :state))
                                     (= (1+ attempt) (plist-get entry :attempts))))))
                 (when (= attempt 0)
                   (rs-smtp-queue-flush)))
               (rs-smtpmail--wake)
               (rs-smtpmail--handle-events))))
        (should (= 1 (length warnings)))
        (should (string-search "451 4.7.1 Greylisted" (car warnings)))
        (should (string-search "tried again at" (car warnings))))
      (should-not failed))))

(ert-deftest test-sending-errors-in-hooks-lose-nothing ()
  (test-with-server nil
    (let* (sent
           (rs-smtpmail-synchronous nil)
           (rs-smtpmail-sent-functions
            (list (lambda (_) (error "Oops"))
                  (lambda (_) (signal 'quit nil))
                  (lambda (entry) (push entry sent))))
           (warnings (test-with-warnings
                       (dotimes (_ 3)
                         (test-send #'rs-smtpmail-send-it (test-header)))
                       (sink-wait "the outcomes" (lambda () (= 3 (length sent)))))))
      (should (= 3 (length warnings)))
      (should (string-search "Oops" (car warnings))))))

(defun test-quit (gate)
  "Send and quit when the session has come to GATE; return what is told."
  (run-at-time 0 nil
               (lambda ()
                 (sink-wait "the session"
                            (lambda ()
                              (string-search
                               (format "%S" gate)
                               (test-bytes (expand-file-name "stats.json"
                                                             test-mailbox)))))
                 (setq quit-flag t)))
  (condition-case err
      (test-send-synchronously (test-header))
    (quit (cadr err))))

(ert-deftest test-sending-quit-after-the-last-byte ()
  (test-with-server (test-script '(:stage "final" :hold "gate"))
    (should (string-search "has the message already" (test-quit "gate")))
    (process-send-string test-server "release gate\n")
    (test-wait-for-state)
    (should (= 1 (test-received-count)))))

(ert-deftest test-sending-quit-leaves-it-on-hold ()
  (test-with-server (test-script '(:stage "greeting" :hold "gate"))
    (should (string-search "on hold" (test-quit "gate")))
    (test-wait-for-state 'held)
    (process-send-string test-server "release gate\n")
    ;; The session may still be at putting it down.
    (sink-wait "the end of the session"
               (lambda ()
                 (condition-case nil
                     (progn (rs-smtpmail-retry
                             (plist-get (car (rs-smtp-queue-list)) :id))
                            t)
                   (rs-smtp-error nil))))
    (test-wait-for-state)
    (should (= 1 (test-received-count)))))

(ert-deftest test-sending-timers-run-while-waiting ()
  (test-with-server (test-script '(:stage "mail" :hold "gate"))
    (let (ran)
      (run-at-time 0.05 nil (lambda ()
                              (setq ran t)
                              (process-send-string test-server "release gate\n")))
      (test-send-synchronously (test-header))
      (should ran))))

(ert-deftest test-sending-another-mail-while-waiting ()
  "Neither gets the other's recipients."
  (test-with-server (test-script '(:stage "mail" :hold "gate"))
    (let* ((server test-server)
           done
           (timer (run-at-time
                   0.05 nil
                   (lambda ()
                     (test-with-server nil
                       (test-send-synchronously (test-header "To: b@x.org"))
                       (should (equal '("b@x.org")
                                      (plist-get (test-received 1) :recipients)))
                       (setq done t))
                     (process-send-string server "release gate\n")))))
      (unwind-protect
          (test-send-synchronously (test-header "To: a@x.org"))
        ;; Its error would hide that of the first mail.
        (cancel-timer timer))
      (should done)
      (should (equal '("a@x.org") (plist-get (test-received 1) :recipients))))))

;;;; The functions for other packages

(ert-deftest test-sending-callback ()
  (test-with-server nil
    (let* (events
           (id (rs-smtp-send "Subject: x\n\nHello\n" "me@example.org"
                             '("a@x.org" "b@x.org")
                             (list :host "localhost" :port smtpmail-smtp-service)
                             (lambda (event) (push event events)))))
      (ert-with-message-capture messages
        (sink-wait "the outcome" (lambda () events))
        (should-not (string-search "Sent to" messages)))
      (should (equal 1 (length events)))
      (should (eq 'sent (plist-get (car events) :event)))
      (should (equal id (plist-get (plist-get (car events) :entry) :id)))
      (should (string-prefix-p "250" (plist-get (car events) :reply)))
      (should (equal "Subject: x\r\n\r\nHello\r\n" (plist-get (test-received 1) :bytes))))))

(ert-deftest test-sending-callback-of-a-failure ()
  (test-with-server (test-script '(:stage "mail" :reply "550 No"))
    (let (events)
      (should
       (test-with-warnings
         (rs-smtp-send "Subject: x\n\nHello\n" "" '("a@x.org")
                       (list :host "localhost" :port smtpmail-smtp-service)
                       (lambda (event) (push event events) (error "Oops")))
         (sink-wait "the outcome" (lambda () events))))
      (should (eq 'failed (plist-get (car events) :event)))
      (should (string-search "550 No" (plist-get (car events) :error))))))

(ert-deftest test-sending-queue-functions ()
  (test-with-server (test-script '(:stage "mail" :reply "550 No"))
    (let ((rs-smtpmail-synchronous t))
      (should-error (test-send-synchronously (test-header))))
    (let* ((entry (car (rs-smtp-queue-list)))
           (id (plist-get entry :id)))
      (should (equal (rs-smtp-queue-list id) entry))
      (should (equal "<fixed@example.org>" (plist-get entry :message-id)))
      (should (string-suffix-p "\r\n\r\nHello\r\n" (rs-smtp-queue-message id)))
      (rs-smtp-queue-hold id t)
      (test-wait-for-state 'held)
      (let ((noninteractive nil))
        (cl-letf (((symbol-function 'yes-or-no-p) #'ignore))
          (rs-smtpmail-remove id))
        (should (rs-smtp-queue-list id))
        (cl-letf (((symbol-function 'yes-or-no-p) #'always))
          (rs-smtpmail-remove id)))
      (should-not (rs-smtp-queue-list id))
      (should-error (rs-smtp-queue-message id) :type 'rs-smtp-no-such-entry))))

;;;; The mode

(ert-deftest test-sending-mode-routes-and-leaves-no-trace ()
  (let ((functions '(smtpmail-send-it smtpmail-via-smtp
                     smtpmail-deduce-address-list smtpmail-send-queued-mail))
        (idle-timers timer-idle-list))
    (cl-flet ((definitions () (mapcar #'symbol-function functions)))
      (let ((before (definitions)))
        (test-with-server nil
          (rs-smtpmail-mode 1)
          (unwind-protect
              (progn
                (should-not (equal before (definitions)))
                (let ((rs-smtpmail-synchronous t))
                  (test-send #'smtpmail-send-it (test-header)))
                (should (equal (plist-get (test-received 1) :recipients)
                               '("you@example.com")))
                ;; As feedmail calls it.
                (with-temp-buffer
                  (insert "From: f@x.org\nSubject: x\n\nfed")
                  (let ((rs-smtpmail-synchronous t))
                    (should-not (smtpmail-via-smtp '("a@x.org") (current-buffer)))))
                (should (equal "f@x.org" (plist-get (test-received 2) :sender))))
            (rs-smtpmail-mode -1)))
        (should (equal before (definitions)))
        (should (equal idle-timers timer-idle-list))
        (test-with-server nil
          (test-send-synchronously (test-header))
          (should (equal before (definitions)))
          (should-error (test-send-synchronously (test-header "To: a@x b@x")))
          (should (equal before (definitions))))))))

(provide 'test-sending)

;;; test-sending.el ends here
