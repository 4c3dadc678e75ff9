;;; test-clients-feedmail.el --- feedmail, and advice on smtpmail  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'clients)
(require 'feedmail)

;;;; feedmail

(defmacro test-with-feedmail (&rest body)
  "Run BODY with feedmail set up, and the mode on."
  (declare (indent 0) (debug t))
  `(test-with-mode
     (let ((send-mail-function #'feedmail-send-it)
           (feedmail-buffer-eating-function #'feedmail-buffer-to-smtpmail)
           (feedmail-enable-queue nil)
           (feedmail-queue-directory (test-file "feedmail-queue"))
           (feedmail-queue-draft-directory (test-file "feedmail-drafts"))
           (feedmail-queue-chatty-sit-for 0)
           (feedmail-confirm-outgoing nil))
       (make-directory feedmail-queue-directory)
       (make-directory feedmail-queue-draft-directory)
       ,@body)))

(defun test-feed (&rest fields)
  "Send a mail with the header FIELDS by `send-mail-function'."
  (test-send send-mail-function (apply #'test-header fields) "Hello\n"))

(test-client test-clients-feedmail-send ("feedmail" "Send")
  (test-with-server nil
    (test-with-feedmail
      (test-feed "Cc: her@example.com"))
    (let ((received (test-received 1)))
      (should (equal '("her@example.com" "you@example.com")
                     (sort (plist-get received :recipients) #'string<))))
    (test-lacks (test-received 1) "text follows")
    (test-wait-for-state)))

(test-client test-clients-feedmail-fails ("feedmail" "Failure")
  (test-with-refusal
    (test-with-feedmail
      (let ((rs-smtpmail-synchronous t))
        (test-refused (test-feed))))))

(test-client test-clients-feedmail-bcc ("feedmail" "Bcc")
  (test-with-server nil
    (test-with-feedmail
      (test-feed "Bcc: secret@example.net"))
    (should (member "secret@example.net" (plist-get (test-received 1) :recipients)))
    (test-lacks (test-received 1) "secret" "Bcc")
    (test-wait-for-state)))

(test-client test-clients-feedmail-fcc ("feedmail" "Copy")
  (let ((fcc (test-file "fcc")))
    (test-with-server nil
      (test-with-feedmail
        (test-feed (concat "Fcc: " fcc)))
      (test-lacks (test-arrived 1 '("you@example.com")) "Fcc"))
    (should (string-search "Hello\n" (test-bytes fcc)))))

(test-client test-clients-feedmail-account ("feedmail" "Account")
  "Where feedmail's users choose it: around the function that sends."
  (test-with-server nil
    (let ((port smtpmail-smtp-service))
      (test-with-feedmail
        (let ((smtpmail-smtp-server "nowhere.invalid")
              (smtpmail-smtp-service 1)
              (feedmail-buffer-eating-function
               (lambda (&rest arguments)
                 (let ((smtpmail-smtp-server "localhost")
                       (smtpmail-smtp-service port))
                   (apply #'feedmail-buffer-to-smtpmail arguments)))))
          (test-feed))))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-feedmail-resend ("feedmail" "Resend")
  (test-with-server nil
    (test-with-feedmail
      (test-feed "From: friend@example.net" "Resent-To: new@example.com"
                 "Resent-From: me@example.org"))
    (test-arrived 1 '("new@example.com") "\r\nTo: you@example.com")))

(defun test-feedmail-queued ()
  "Return the names of the mails in feedmail's queue."
  (directory-files feedmail-queue-directory nil "\\.fqm\\'"))

(test-client test-clients-feedmail-queue ("feedmail" "Queue")
  (test-with-server nil
    (test-with-feedmail
      (test-send (lambda () (feedmail-message-action-queue))
                 (test-header "Bcc: secret@example.net"))
      (should (= 1 (length (test-feedmail-queued))))
      (should (= 0 (test-received-count)))
      (should-not (test-states)))))

(test-client test-clients-feedmail-flush ("feedmail" "Flush")
  (test-with-server nil
    (test-with-feedmail
      (dolist (to '("a@example.com" "b@example.com"))
        (test-send #'feedmail-message-action-queue
                   (test-header (concat "To: " to))))
      (should (= 2 (length (test-feedmail-queued))))
      (should (equal '(2 0) (seq-take (feedmail-run-the-queue-no-prompts) 2)))
      (should-not (test-feedmail-queued))
      (test-wait-for-state)
      (should (= 2 (test-received-count))))))

(test-client test-clients-feedmail-flush-refused ("feedmail" "Flush")
  "What could not be sent stays in feedmail's queue."
  (test-with-refusal
    (test-with-feedmail
      (let ((rs-smtpmail-synchronous t))
        (test-send #'feedmail-message-action-queue (test-header))
        (cl-letf (((symbol-function 'sit-for) #'ignore))
          (should (equal '(0 1)
                         (seq-take (feedmail-run-the-queue-no-prompts) 2))))
        (should (= 1 (length (test-feedmail-queued))))
        (should (equal '(failed) (test-states)))))))

;;;; Users' advice

(defun test-account-advice (port)
  "Return a function that sets the account for PORT by the mail's sender."
  (lambda (original recipients buffer &rest arguments)
    (if (string-search "me@example.org"
                       (with-current-buffer buffer
                         (save-restriction
                           (message-narrow-to-headers)
                           (mail-fetch-field "from"))))
        (let ((smtpmail-smtp-server "localhost")
              (smtpmail-smtp-service port))
          (apply original recipients buffer arguments))
      (apply original recipients buffer arguments))))

(defmacro test-with-advice (function how advice &rest body)
  "Run BODY with FUNCTION advised by ADVICE in the way HOW."
  (declare (indent 3) (debug t))
  `(let ((advice ,advice))
     (advice-add ,function ,how advice)
     (unwind-protect
         (progn ,@body)
       (advice-remove ,function advice))))

(test-client test-clients-advice-around ("Advice on smtpmail" "Account")
  (test-each-way
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server "nowhere.invalid")
          (smtpmail-smtp-service 1))
      (test-with-advice 'smtpmail-via-smtp :around (test-account-advice port)
        (test-send send-mail-function (test-header))))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-advice-before-the-mode ("Advice on smtpmail" "Account")
  "It does not matter which came first."
  (test-with-server nil
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server "nowhere.invalid")
          (smtpmail-smtp-service 1))
      (test-with-advice 'smtpmail-via-smtp :around (test-account-advice port)
        (test-with-mode
          (test-send send-mail-function (test-header)))))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-advice-sets-variables ("Advice on smtpmail" "Account")
  "As in recipes all over the net: set, not bound, and by `:before'."
  (test-each-way
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server nil)
          (smtpmail-smtp-service 1))
      (test-with-advice 'smtpmail-via-smtp :before
          (lambda (&rest _)
            (setq smtpmail-smtp-server "localhost"
                  smtpmail-smtp-service port))
        (test-send send-mail-function (test-header))))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-advice-around-send-it ("Advice on smtpmail" "Account")
  (test-each-way
    (let ((port smtpmail-smtp-service)
          (smtpmail-smtp-server "nowhere.invalid")
          (smtpmail-smtp-service 1))
      (test-with-advice 'smtpmail-send-it :around
          (lambda (original)
            (let ((smtpmail-smtp-server "localhost")
                  (smtpmail-smtp-service port))
              (funcall original)))
        (test-send send-mail-function (test-header))))
    (test-arrived 1 '("you@example.com"))))

(test-client test-clients-advice-vetoes ("Advice on smtpmail" "Failure")
  (test-each-way
    (test-with-advice 'smtpmail-via-smtp :before
        (lambda (&rest _) (user-error "Not today"))
      (should (string-search "Not today"
                             (test-error #'test-send send-mail-function
                                         (test-header)))))
    (should-not (test-states))
    (should (= 0 (test-received-count)))))

(test-client test-clients-advice-changes-recipients ("Advice on smtpmail" "Send")
  (test-each-way
    (test-with-advice 'smtpmail-via-smtp :filter-args
        (lambda (arguments)
          (cons (list "other@example.com") (cdr arguments)))
      (test-send send-mail-function (test-header)))
    (test-arrived 1 '("other@example.com"))))

(provide 'test-clients-feedmail)

;;; test-clients-feedmail.el ends here
