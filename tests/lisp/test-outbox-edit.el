;;; test-outbox-edit.el --- Editing what is in the outbox  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-outbox-edit)

(defun test-edit-add (message &optional recipients options)
  "Put MESSAGE for RECIPIENTS into the spool; return its entry.
By default it is for tomorrow; OPTIONS may say something else."
  (rs-smtp-queue-list
   (rs-smtp-send (encode-coding-string message 'utf-8)
                 "me@example.org"
                 (or recipients '("you@example.com"))
                 (list :host "localhost" :port smtpmail-smtp-service)
                 nil
                 (or options (list :not-before (+ (float-time) 86300))))))

(defconst test-edit-message
  "From: Me <me@example.org>\nTo: you@example.com\nSubject: Test\n\
Message-ID: <fixed@example.org>\nDate: Sat, 01 Nov 2025 12:00:00 +0000\n\nHello\n"
  "A message.")

(defmacro test-edit (entry &rest body)
  "Run BODY in the buffer in which ENTRY is edited; kill the buffer."
  (declare (indent 1) (debug t))
  `(save-window-excursion
     (let ((inhibit-message t)
           (kill-buffer-query-functions nil))
       (rs-smtpmail--outbox-take-out ,entry)
       (let ((buffer (current-buffer)))
         (unwind-protect
             (progn ,@body)
           (when (buffer-live-p buffer)
             (with-current-buffer buffer
               (set-buffer-modified-p nil))
             (kill-buffer buffer)))))))

(defun test-edit-field (name)
  "Return the value of the field NAME in this buffer."
  (save-restriction
    (message-narrow-to-headers)
    (message-fetch-field name)))

(defun test-edit-send ()
  "Send the mail in this buffer now."
  (let ((message-send-mail-function #'rs-smtpmail-send-it)
        (rs-smtpmail-synchronous t))
    (save-restriction
      (message-narrow-to-headers)
      (message-remove-header "X-Rs-Smtpmail-Send-At"))
    (message-send)))

(ert-deftest test-edit-and-send ()
  (test-with-server nil
    (let* ((entry (test-edit-add test-edit-message
                                 '("you@example.com" "secret@example.net")))
           (id (plist-get entry :id)))
      (test-edit entry
        (should (equal "secret@example.net" (test-edit-field "Bcc")))
        (should-not (test-edit-field "Date"))
        (should (string-match-p "\\`[-0-9]+ [:0-9]+\\'"
                                (test-edit-field "X-Rs-Smtpmail-Send-At")))
        (should (equal '(held) (test-states)))
        (should (equal "editing" (rs-smtpmail--outbox-state-text
                                  (rs-smtp-queue-list id))))
        ;; Editing it again goes to the same buffer.
        (rs-smtpmail--outbox-take-out (rs-smtp-queue-list id))
        (should (eq buffer (current-buffer)))
        (goto-char (point-max))
        (insert "And more\n")
        (test-edit-send)
        (should-not (rs-smtp-queue-list))
        (let ((received (test-received 1)))
          (should (equal '("you@example.com" "secret@example.net")
                         (plist-get received :recipients)))
          (should (string-search "\r\nHello\r\nAnd more\r\n" (plist-get received :bytes)))
          (should (string-search "<fixed@example.org>" (plist-get received :bytes)))
          (should-not (string-search "secret" (plist-get received :bytes))))))
    (should (= 0 (hash-table-count rs-smtpmail--edited)))))

(ert-deftest test-edit-and-give-up ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad" :reply "550 No"))
    (let ((entry (test-edit-add test-edit-message)))
      (test-edit entry
        (insert "Changed"))
      (should (equal '(held) (test-states)))
      (should (equal (rs-smtp-queue-message (plist-get entry :id))
                     (string-replace "\n" "\r\n" test-edit-message)))
      (rs-smtp-queue-remove (plist-get entry :id)))
    ;; What would not be sent by itself is as it was.
    (let ((id (plist-get (test-edit-add test-edit-message '("bad@example.com")
                                        '(:dsn nil))
                         :id)))
      (test-wait-for-state 'failed)
      (test-edit (rs-smtp-queue-list id)
        (should (equal '(held) (test-states))))
      (should (equal '(failed) (test-states))))))

(ert-deftest test-edit-and-fail-to-send ()
  (test-with-server nil
    (let ((entry (test-edit-add test-edit-message)))
      (test-edit entry
        (cl-letf (((symbol-function 'rs-smtp-send)
                   (lambda (&rest _) (signal 'rs-smtp-spool-error '("full")))))
          (should-error (test-edit-send) :type 'rs-smtp-spool-error))
        (should (eq buffer (gethash (plist-get entry :id) rs-smtpmail--edited)))
        (should (equal '(held) (test-states)))))))

(ert-deftest test-edit-original-that-cannot-be-deleted ()
  "Both are there then, and the original is not sent by itself."
  (test-with-server nil
    (let ((entry (test-edit-add test-edit-message)))
      (test-edit entry
        (cl-letf (((symbol-function 'rs-smtp-queue-remove)
                   (lambda (_) (signal 'rs-smtp-spool-error '("full")))))
          (test-edit-send)))
      (test-received 1)
      (should (equal '(held) (test-states))))))

(ert-deftest test-edit-killed-emacs ()
  (test-with-server nil
    (let* ((entry (test-edit-add test-edit-message))
           (child (test-emacs
                   `(progn
                      (require 'rs-smtpmail)
                      (require 'rs-smtpmail-outbox-edit)
                      (rs-smtpmail--outbox-take-out
                       (rs-smtp-queue-list ,(plist-get entry :id)))
                      (insert "Changed")
                      (signal-process (emacs-pid) 'KILL)
                      (sleep-for 10)))))
      (should (eq 9 (car (test-finish child))))
      (should (equal '(held) (test-states)))
      (should (equal (rs-smtp-queue-message (plist-get entry :id))
                     (string-replace "\n" "\r\n" test-edit-message))))))

(ert-deftest test-edit-and-save ()
  (test-with-server nil
    (let ((entry (test-edit-add test-edit-message))
          (message-auto-save-directory (test-new-directory "drafts")))
      (test-edit entry
        (should (equal '(held) (test-states)))
        (goto-char (point-max))
        (insert "And more\n")
        (save-buffer)
        (should-not (rs-smtp-queue-list))
        (should (string-search "And more" (test-bytes buffer-file-name)))))))

(defconst test-edit-attachment
  "From: me@example.org\nTo: you@example.com\nMIME-Version: 1.0\n\
Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\n\
Content-Type: multipart/mixed; boundary=b\n\n\
--b\nContent-Type: text/plain; charset=utf-8\n\
Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6n <#part>\n\
--b\nContent-Type: application/octet-stream; name=a.bin\n\
Content-Disposition: attachment; filename=a.bin\n\
Content-Transfer-Encoding: base64\n\nAAECAwT/\n--b--\n"
  "A message with an attachment.")

(ert-deftest test-edit-attachment ()
  (test-with-server nil
    (let ((entry (test-edit-add test-edit-attachment))
          (message-auto-save-directory (test-new-directory "drafts")))
      (test-edit entry
        (should (equal "Grüße" (test-edit-field "Subject")))
        (goto-char (point-min))
        (should (search-forward "Schön"))
        ;; The file does not hold the attachment.
        (save-buffer)
        (should (equal '(held) (test-states)))
        (insert "er")
        (test-edit-send)
        (should-not (rs-smtp-queue-list))
        (let ((bytes (plist-get (test-received 1) :bytes)))
          (should (string-match "^Subject: \\(.*\\)\r$" bytes))
          (should (equal "Grüße" (rfc2047-decode-string (match-string 1 bytes))))
          (should (string-search "AAECAwT/" bytes))
          (should (string-search "filename=a.bin" bytes))
          (should (string-match-p "Sch=C3=B6ner <#part>\\|Schöner <#part>"
                                  (decode-coding-string bytes 'utf-8))))))))

(ert-deftest test-edit-signed ()
  "A signed body stays as it is, octet by octet."
  (test-with-server nil
    (let* ((body "--b\nContent-Type: text/plain; charset=utf-8\n\
Content-Transfer-Encoding: quoted-printable\n\nSch=C3=B6n <#part type=x>\n\
--b\nContent-Type: application/pgp-signature\n\nxyz\n--b--\n")
           (entry (test-edit-add
                   (concat "From: me@example.org\nTo: you@example.com\n"
                           "Subject: =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=\nMIME-Version: 1.0\n"
                           "Content-Type: multipart/signed; boundary=b;\n"
                           " protocol=\"application/pgp-signature\"; micalg=pgp-sha256\n\n"
                           body))))
      (test-edit entry
        (should (equal "Grüße" (test-edit-field "Subject")))
        (message-goto-to)
        (insert ", him@example.com")
        (test-edit-send)
        (let ((received (test-received 1)))
          (should (equal '("you@example.com" "him@example.com")
                         (plist-get received :recipients)))
          (should (string-suffix-p (concat "\r\n\r\n" (string-replace "\n" "\r\n" body))
                                   (plist-get received :bytes)))
          (should (string-search "micalg=pgp-sha256" (plist-get received :bytes))))))))

(ert-deftest test-edit-nobody-gets-it-twice ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad" :reply "550 No"))
    (let ((entry (test-edit-add
                  (string-replace "To: you@example.com"
                                  "To: you@example.com, bad@example.com"
                                  test-edit-message)
                  '("you@example.com" "bad@example.com") '(:dsn nil)))
          (asked 0))
      (test-wait-for-state 'failed)
      (test-edit (rs-smtp-queue-list (plist-get entry :id))
        (cl-letf (((symbol-function 'y-or-n-p)
                   (lambda (prompt)
                     (cl-incf asked)
                     (should (string-prefix-p
                              "you@example.com got this message already; " prompt))
                     nil)))
          (should-error (test-edit-send) :type 'user-error)
          (should (= asked 1))
          (message-goto-to)
          (message-beginning-of-line)
          (kill-line)
          (insert "good@example.com")
          (test-edit-send))
        (should (equal '("good@example.com") (plist-get (test-received 2) :recipients)))
        (should-not (rs-smtp-queue-list))))))

(ert-deftest test-edit-resent ()
  (test-with-server nil
    (let ((entry (test-edit-add
                  (concat "Resent-From: me@example.org\nResent-To: a@example.com\n"
                          (string-replace "Me <me@example.org>" "her@example.net"
                                          test-edit-message))
                  '("a@example.com" "secret@example.net"))))
      (test-edit entry
        (should (equal "secret@example.net" (test-edit-field "Resent-Bcc")))
        (should-not (test-edit-field "Bcc"))
        (test-edit-send)
        (let ((received (test-received 1)))
          (should (equal '("secret@example.net" "a@example.com")
                         (sort (plist-get received :recipients) #'string>)))
          (should-not (string-search "secret" (plist-get received :bytes))))))))

(ert-deftest test-edit-server ()
  "The server is another one than today's settings say."
  (test-with-server nil
    (let ((entry (test-edit-add test-edit-message))
          (smtpmail-smtp-server "elsewhere.example.org"))
      (cl-letf (((symbol-function 'y-or-n-p) #'always))
        (test-edit entry
          (should (equal "localhost" smtpmail-smtp-server))
          (test-edit-send)
          (test-received 1))))))

(ert-deftest test-edit-what-is-being-sent ()
  (test-with-server (test-script '(:stage "mail" :hold "gate"))
    (let ((entry (test-edit-add test-edit-message nil '(:dsn nil))))
      (test-wait-for-state 'sending)
      (should-error (rs-smtpmail--outbox-take-out
                     (rs-smtp-queue-list (plist-get entry :id)))
                    :type 'user-error)
      (process-send-string test-server "release gate\n")
      (test-received 1))))

;;; test-outbox-edit.el ends here
