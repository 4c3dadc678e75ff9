;;; test-addresses.el --- Who gets a mail  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)

(defun test-recipients (&rest header)
  "Return the recipients of a mail with HEADER, as smtpmail would be told."
  (with-temp-buffer
    (test-insert-mail header "To: nobody@example.com\n\nBcc: nobody@example.com\n")
    (rs-smtpmail--check-header)
    (rs-smtpmail--mail-recipients)))

(require 'rs-smtpmail-message)

(ert-deftest test-addresses-in-order-once-each ()
  (dolist (case
           '((("To: a@x, \"B, C\" <b@x>" "Cc: c@x") "a@x" "b@x" "c@x")
             (("Cc: c@x" "To: a@x" "Bcc: d@x") "c@x" "a@x" "d@x")
             (("To: a@x" "Cc: a@x, b@x, a@x") "a@x" "b@x")
             (("To: a@x" "To: b@x" "Bcc: c@x" "bcc: d@x") "a@x" "b@x" "c@x" "d@x")
             (("To: a@x," "\tb@x," "  c@x" "X-Other: y@x") "a@x" "b@x" "c@x")
             (("To : a@x" "Bcc\t: b@x") "a@x" "b@x")
             (("TO:a@x" "Subject: To: b@x" "X-To: c@x" "To-Do: d@x") "a@x")
             (("To: Friends: a@x, Bob <b@x>;") "a@x" "b@x")
             (("To: undisclosed-recipients:;" "Bcc: a@x") "a@x")
             (("To: \"john doe\"@x, <\"a,b\"@x>") "\"john doe\"@x" "\"a,b\"@x")
             (("To: a@x (one (nested) comment, with comma)") "a@x")
             (("To: =?utf-8?q?J=C3=BC?= <j@x>") "j@x")
             (("To: Jürgen Müller <j@x>") "j@x")
             (("To: jü@exämple.de") "jü@exämple.de")
             (("To: root") "root")
             (("To: a@[127.0.0.1]") "a@[127.0.0.1]")
             (("To:" "Cc: a@x") "a@x")))
    (ert-info ((format "%S" (car case)))
      (should (equal (apply #'test-recipients (car case)) (cdr case))))))

(ert-deftest test-addresses-resent-fields-replace-the-others ()
  (should (equal (test-recipients "To: a@x" "Cc: b@x" "Bcc: c@x"
                                  "Resent-To: d@x" "Resent-Cc: e@x"
                                  "Resent-Bcc: f@x")
                 '("d@x" "e@x" "f@x")))
  (should (equal (test-recipients "Resent-From: me@x" "To: a@x") '("a@x"))))

(ert-deftest test-addresses-aliases-are-expanded ()
  (let ((mail-aliases '(("pals" . "a@x, \"B. C.\" <b@x>") ("all" . "pals, d@x"))))
    (should (equal (test-recipients "To: all, e@x") '("a@x" "b@x" "d@x" "e@x")))))

(ert-deftest test-addresses-what-cannot-be-parsed-is-named ()
  (dolist (case '(("To: a@x b@x" "To: " "b@x")
                  ("Cc: a@x;b@x" "Cc: " "a@x;b@x")
                  ("Bcc: Doe, John <j@x>" "Bcc: " "Doe")
                  ("Resent-To: a@@x" "Resent-To: " "a@@x")))
    (let ((text (error-message-string
                 (should-error (test-recipients (car case))
                               :type 'rs-smtp-address-error))))
      (should (string-search (nth 1 case) text))
      (should (string-search (nth 2 case) text)))))

(ert-deftest test-addresses-a-header-cut-short-is-refused ()
  (dolist (line '("" "no field at all" "Half-Field"))
    (let ((text (test-error #'test-recipients "To: a@x" line "Bcc: b@x")))
      (should (string-search "Bcc" text))))
  ;; Nobody would be forgotten here.
  (should (equal (test-recipients "To: a@x" "" "Hello") '("a@x"))))

(ert-deftest test-addresses-errors-leave-nothing-behind ()
  "Neither a buffer nor an Fcc."
  (let* ((fcc (test-file "fcc"))
         (smtpmail-smtp-server "localhost")
         (smtpmail-queue-dir (test-file "queue"))
         (buffers (buffer-list)))
    (dolist (smtpmail-queue-mail '(nil t))
      (dolist (to '("To: a@x b@x" "To:  " "To: none:;" "X-To: a@x"))
        (should (test-error #'test-send-synchronously
                            (test-header to (concat "Fcc: " fcc) "To:")))))
    (should-not (file-exists-p fcc))
    (should-not (file-exists-p smtpmail-queue-dir))
    (should-not (cl-set-difference (buffer-list) buffers))
    (should-not (rs-smtp-queue-list))))

(ert-deftest test-addresses-reach-the-envelope ()
  (test-with-server nil
    (let ((smtpmail-sendto-domain "example.net"))
      (test-send-synchronously
       (test-header "To: Friends: a@x.org, \"john doe\"@y.org;" "Cc: root"
                    "Bcc: secret@z.org," "\tother@z.org")))
    (let ((received (test-received 1)))
      (should (equal (plist-get received :recipients)
                     '("a@x.org" "\"john doe\"@y.org" "root@example.net"
                       "secret@z.org" "other@z.org")))
      (should-not (string-search "z.org" (plist-get received :bytes))))))

(ert-deftest test-addresses-bcc-after-a-spaced-field-stays-secret ()
  (test-with-server nil
    (test-send-synchronously (test-header "To:" "To : a@x.org" "Bcc : b@x.org"))
    (let ((received (test-received 1)))
      (should (equal (plist-get received :recipients) '("a@x.org" "b@x.org")))
      (should-not (string-search "b@x.org" (plist-get received :bytes))))))

(provide 'test-addresses)

;;; test-addresses.el ends here
