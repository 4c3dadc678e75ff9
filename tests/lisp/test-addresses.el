;;; test-addresses.el --- Who gets a mail  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'mailabbrev)
(require 'rs-smtpmail-message)

(defun test-recipients (&rest header)
  "Return the recipients of a mail with HEADER, as smtpmail would be told."
  (with-temp-buffer
    (test-insert-mail header "To: nobody@example.com\n\nBcc: nobody@example.com\n")
    (rs-smtpmail--check-header)
    (rs-smtpmail--mail-recipients)))

(defmacro test-addresses-table (arguments &rest cases)
  "Send a mail for each of CASES to a server started with ARGUMENTS.
A case is a list of header lines without a To field of its own, followed by
the recipients that the server must get, or by :error and texts that the
error must have."
  (declare (indent 1))
  `(test-with-server ,arguments
     (let ((number 0))
       (dolist (case ',cases)
         (let ((header (apply #'test-header "To:" (car case))))
           (ert-info ((format "%S" (car case)))
             (if (eq :error (cadr case))
                 (let ((text (test-error #'test-send-synchronously header)))
                   (ert-info (text :prefix "Error: ")
                     (dolist (part (cddr case))
                       ;; Emacs quotes the texts in signals' data.
                       (should (string-search part (string-replace "\\" "" text))))))
               (test-send-synchronously header)
               (should (equal (cdr case)
                              (plist-get (test-received (cl-incf number))
                                         :recipients)))))))
       ;; What was refused has sent nothing, to nobody.
       (should (= number (test-received-count))))))

(ert-deftest test-addresses-who-gets-it ()
  (test-addresses-table nil
    (("To: a@x.org, \"B, C\" <b@x.org>" "Cc: c@x.org") "a@x.org" "b@x.org" "c@x.org")
    (("Cc: c@x.org" "To: a@x.org" "Bcc: d@x.org") "c@x.org" "a@x.org" "d@x.org")
    (("To: a@x.org" "To: b@x.org" "Bcc: c@x.org" "bcc: d@x.org")
     "a@x.org" "b@x.org" "c@x.org" "d@x.org")
    ;; Once each.
    (("To: a@x.org" "Cc: a@X.ORG, b@x.org, a@x.org, A@x.org")
     "a@x.org" "b@x.org" "A@x.org")
    ;; Folded fields, and spaces in odd places.
    (("To: a@x.org," "\tb@x.org," "  c@x.org" "X-Other: y@x.org")
     "a@x.org" "b@x.org" "c@x.org")
    (("To:\n Friends:\n a@x.org\n ,\n Bob\n\t<b@x.org>\n ;") "a@x.org" "b@x.org")
    (("To : a@x.org" "Bcc\t: b@x.org") "a@x.org" "b@x.org")
    (("TO:a@x.org" "Subject: To: b@x.org" "X-To: c@x.org" "To-Do: d@x.org") "a@x.org")
    (("To: " "Cc: a@x.org") "a@x.org")
    (("To: a @ x . org, ,") "a@x.org")
    ;; Groups.
    (("To: Friends: a@x.org, Bob <b@x.org>;") "a@x.org" "b@x.org")
    (("To: A: a@x.org;, c@x.org, \"B, or so\": b@x.org;") "a@x.org" "c@x.org" "b@x.org")
    (("To: undisclosed-recipients:;" "Bcc: a@x.org") "a@x.org")
    ;; Quoted local parts.
    (("To: \"john doe\"@x.org, <\"a,b\"@x.org>, \"a@b\"@x.org, \"a\\\"b\"@x.org")
     "\"john doe\"@x.org" "\"a,b\"@x.org" "\"a@b\"@x.org" "\"a\\\"b\"@x.org")
    (("To: a..b@x.org") "\"a..b\"@x.org")
    ;; Comments.
    (("To: a@x.org (one (nested, with comma) comment)") "a@x.org")
    (("To: a@x.org (\\) \\( b@x.org, \"), (c@x.org) d@x.org (\\\\)") "a@x.org" "d@x.org")
    (("To: Bob (the \"boss\") <b@x.org> (at work)") "b@x.org")
    ;; Encoded words, also where commas hide in them.
    (("To: =?utf-8?q?D=C3=B6=2C?= <j@x.org>, \"=?utf-8?q?J?=\" <k@x.org>")
     "j@x.org" "k@x.org")
    (("To: Jürgen Müller <j@x.org>, \"Ö, ß\" <k@x.org>") "j@x.org" "k@x.org")
    ;; Domain literals.
    (("To: a@[127.0.0.1], <b@[IPv6:::1]>") "a@[127.0.0.1]" "b@[IPv6:::1]")
    ;; Source routes, which nobody follows any more (RFC 5321 appendix C).
    (("To: <@r.org,@s.org:a@x.org>, Bob <@r.org:b@x.org>") "a@x.org" "b@x.org")
    ;; Local users.
    (("To: root, <daemon>, Root <bin>") "root" "daemon" "bin")))

(ert-deftest test-addresses-who-gets-nothing ()
  "Nobody does, and the text that can't be parsed is named."
  (test-addresses-table nil
    (("To: a@x.org b@x.org") :error "To: missing comma before \"b@x.org\"")
    (("To: c@x.org, a@x.org" " b@x.org") :error "To: missing comma before \"b@x.org\"")
    (("Cc: A <a@x.org> B <b@x.org>") :error "Cc: missing comma before \"B <b@x.org>\"")
    (("To: a@x.org;b@x.org") :error "To: semicolon before \"b@x.org\"" "commas")
    (("Bcc: Doe, John <j@x.org>") :error
     "Bcc: \"Doe\" has no domain and is followed by \"John <j@x.org>\"" "quote")
    (("To: c@x.org" "Cc: a@@x.org") :error "Cc: cannot parse the address at \"a@@x.org\"")
    (("To: a@x.org (open, b@x.org") :error "To: " "(open, b@x.org")
    (("To: \"open <a@x.org>, b@x.org") :error "To: " "\"open <a@x.org>")
    (("To: a@x.org, Bob <>") :error "To: cannot parse the address at \"Bob <>\"")
    (("To: Friends: a@x.org, b@x.org") :error "To: " "Friends: a@x.org")
    (("To: mailto:a@x.org") :error "To: " "mailto:a@x.org")
    (("Resent-To: a@@x.org" "To: b@x.org") :error "Resent-To: " "a@@x.org")
    (("To: undisclosed-recipients:;") :error "no recipients")
    (("To: (nobody)" "Cc: " "Bcc: ,") :error "no recipients")
    (("X-To: a@x.org") :error "no recipients")))

(ert-deftest test-addresses-beyond-ascii ()
  (test-addresses-table nil
    (("To: jü@exämple.de, Jü <a@exämple.de>") "jü@exämple.de" "a@exämple.de"))
  ;; Any server takes the domain, only one with SMTPUTF8 the local part.
  (test-addresses-table '("--no-ext" "SMTPUTF8")
    (("To: Jü <a@exämple.de>") "a@xn--exmple-cua.de")
    (("To: jü@exämple.de") :error "jü@exämple.de" "SMTPUTF8")))

(ert-deftest test-addresses-of-resent-mail ()
  (test-addresses-table nil
    (("To: a@x.org" "Cc: b@x.org" "Bcc: c@x.org"
      "Resent-To: d@x.org" "Resent-Cc: e@x.org" "Resent-Bcc: f@x.org")
     "d@x.org" "e@x.org" "f@x.org")
    (("To: a@x.org" "RESENT-BCC: f@x.org") "f@x.org")
    ;; Not again to those to whom it was resent before.
    (("Resent-From: r@x.org" "Resent-Date: x" "Resent-To: d@x.org" "Resent-To: e@x.org"
      "Resent-Bcc: f@x.org" "Received: from y"
      "Resent-Date: x" "Resent-From: d@x.org" "Resent-To: g@x.org")
     "d@x.org" "e@x.org" "f@x.org")
    (("Resent-From: me@x.org" "To: a@x.org") "a@x.org")))

;;;; The envelope's sender

(defun test-sender (&rest header)
  "Return the envelope sender of a mail with HEADER, as it arrives.
A field From must be in HEADER, if there shall be one."
  (test-with-server nil
    (test-send-synchronously (apply #'test-header "From:" header))
    (plist-get (test-received 1) :sender)))

(ert-deftest test-addresses-sender ()
  (pcase-dolist (`(,header ,expected)
                 '((("From: Me <a@x.org>") "a@x.org")
                   (("From: a@x.org" "Sender: s@x.org") "a@x.org")
                   (("From: a@x.org, b@x.org" "Sender: S <s@x.org>") "s@x.org")
                   (("From: a@x.org, b@x.org") "a@x.org")
                   (("From: John Q. <\"a b\"@x.org>") "\"a b\"@x.org")
                   (("From: =?utf-8?q?J=C3=BC?= <a@x.org> (comment)") "a@x.org")
                   (("From: nobody:;") "me@example.org")
                   ;; Empty, or none.
                   (("From: ") "me@example.org")
                   (() "me@example.org")
                   ;; Who resends it, not who wrote it.
                   (("From: a@x.org" "Resent-From: r@x.org" "Resent-To: b@x.org") "r@x.org")
                   (("From: a@x.org" "Resent-From: r@x.org, q@x.org"
                     "Resent-Sender: s@x.org" "Resent-To: b@x.org")
                    "s@x.org")
                   (("From: a@x.org" "Resent-To: b@x.org") "me@example.org")
                   (("From: a@x.org" "Resent-From: r@x.org" "Resent-To: b@x.org"
                     "Resent-From: q@x.org" "Resent-Sender: s@x.org")
                    "r@x.org")
                   ;; Resent by somebody else, earlier.
                   (("From: a@x.org" "Resent-From: r@x.org") "a@x.org")))
    (ert-info ((format "%S" header))
      (should (equal expected (apply #'test-sender header))))))

(ert-deftest test-addresses-specified-sender ()
  (let ((mail-specify-envelope-from t)
        (from "From: a@x.org"))
    (let ((mail-envelope-from "bounces@x.org"))
      (should (equal "bounces@x.org" (test-sender from)))
      (let ((mail-specify-envelope-from nil))
        (should (equal "a@x.org" (test-sender from)))))
    (let ((mail-envelope-from 'header))
      (should (equal "a@x.org" (test-sender from)))
      (should (equal "r@x.org" (test-sender from "Resent-From: r@x.org"
                                            "Resent-To: b@x.org"))))
    (let ((mail-envelope-from ""))
      (should (equal "" (test-sender from))))
    (let ((mail-envelope-from nil))
      (should (equal "a@x.org" (test-sender from))))))

(ert-deftest test-addresses-no-sender ()
  "It is said before anything is touched, also when queueing."
  (test-with-server nil
    (let ((user-mail-address "me@localhost"))
      (dolist (smtpmail-queue-mail '(nil t))
        (pcase-dolist (`(,from ,part) '(("From:" "user-mail-address")
                                        ("From: Doe, John <j@x.org>" "From: ")))
          (should (string-search
                   part
                   (test-error #'test-send-synchronously (test-header from)))))))
    (should-not (file-exists-p smtpmail-queue-dir))))

;;;; Aliases

(ert-deftest test-addresses-aliases-are-expanded ()
  (let ((mail-aliases '(("pals" . "a@x, \"B. C.\" <b@x>") ("all" . "pals, d@x"))))
    (should (equal (test-recipients "To: all, e@x") '("a@x" "b@x" "d@x" "e@x")))))

(ert-deftest test-addresses-alias-file ()
  "Read when the first mail is sent, as by smtpmail."
  (let ((mail-aliases t)
        (mail-alias-modtime mail-alias-modtime)
        (mail-personal-alias-file (test-file "mailrc")))
    (with-temp-file mail-personal-alias-file
      (insert "alias pals a@x \"Bob B. <b@x>\"\n"))
    (should (equal (test-recipients "To: pals, c@x") '("a@x" "b@x" "c@x")))))

(ert-deftest test-addresses-abbreviations-are-expanded-when-typed ()
  (let ((mail-abbrevs nil)
        (mail-abbrev-aliases-need-to-be-resolved t))
    (define-mail-abbrev "pals" "a@x.org, b@x.org")
    (test-with-server nil
      (let ((rs-smtpmail-synchronous t))
        (with-temp-buffer
          (mail-mode)
          (erase-buffer)
          (mail-abbrevs-setup)
          (test-insert-mail (test-header "To: pals") "Hello\n")
          (goto-char (point-min))
          (search-forward "pals")
          (let ((last-command-event ?,))
            (expand-abbrev)
            (self-insert-command 1))
          (rs-smtpmail-send-it)))
      (should (equal '("a@x.org" "b@x.org")
                     (plist-get (test-received 1) :recipients))))))

;;;; The whole way

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
