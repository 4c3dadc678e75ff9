;;; test-bytes.el --- The same bytes as smtpmail's  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)

(defun test-both-ways (header &optional body mode)
  "Send a mail by smtpmail and by the module, and compare what arrives.
Return the bytes.  HEADER, BODY and MODE are as for `test-send'."
  (test-with-server nil
    ;; smtpmail sends 8-bit bytes without announcing them.
    (setq test-foreign-connections '(1))
    (let ((smtpmail-stream-type 'plain))
      (test-send #'smtpmail-send-it header body mode)
      (test-send-synchronously header body mode)
      ;; As a large mail.
      (let ((rs-smtpmail--large-body -1))
        (test-send-synchronously header body mode)))
    (let ((theirs (test-received 1))
          (ours (test-received 2))
          (large (test-received 3)))
      (should (equal (plist-get ours :bytes) (plist-get theirs :bytes)))
      (should (equal (plist-get large :bytes) (plist-get theirs :bytes)))
      (should (equal (plist-get large :sender) (plist-get theirs :sender)))
      (should (equal (plist-get ours :sender) (plist-get theirs :sender)))
      (should (equal (sort (plist-get ours :recipients) #'string<)
                     (sort (plist-get theirs :recipients) #'string<)))
      (should (equal (plist-get ours :helo) (plist-get theirs :helo)))
      (plist-get ours :bytes))))

(defmacro test-both-modes (&rest body)
  "Run BODY with the variable `mode' bound to each of the two mail modes."
  (declare (indent 0))
  `(dolist (mode '(mail-mode message-mode))
     (ert-info ((symbol-name mode))
       ,@body)))

(ert-deftest test-bytes-plain-ascii ()
  (test-both-modes
    (should (string-suffix-p "\r\n\r\nHello,\r\n\r\nworld\r\n"
                             (test-both-ways (test-header) "Hello,\n\nworld\n" mode)))))

(ert-deftest test-bytes-utf-8 ()
  (test-both-modes
    (test-both-ways (test-header "Subject: Grüße €" "To: Jürgen <j@example.com>")
                    "Zwölf Boxkämpfer\n日本語 – €\n" mode)))

(ert-deftest test-bytes-other-coding-systems ()
  (dolist (coding '(utf-8-unix utf-8-dos utf-8-mac iso-8859-1 iso-8859-15-dos
                    iso-2022-jp euc-jp gb18030))
    (ert-info ((symbol-name coding))
      (let ((smtpmail-code-conv-from coding)
            (sendmail-coding-system coding))
        (test-both-ways (test-header)
                        (if (memq coding '(iso-2022-jp euc-jp))
                            "日本語\nテスト abc\n"
                          "Grüße\n"))))))

(ert-deftest test-bytes-attachment ()
  (let ((file (test-file "attachment")))
    (with-temp-file file
      (set-buffer-multibyte nil)
      (dotimes (octet 256) (insert octet)))
    (test-both-ways (test-header)
                    (format "Grüße\n<#part type=\"application/octet-stream\" \
filename=\"%s\" disposition=attachment>\n<#/part>\n" file)
                    #'message-mode)))

(ert-deftest test-bytes-dots-and-lookalikes ()
  (test-both-modes
    (test-both-ways (test-header)
                    ".\n..\n.a\n\n.\nFrom here\n>From there\nQUIT\n. \n" mode)))

(ert-deftest test-bytes-bcc ()
  (test-both-modes
    (let ((bytes (test-both-ways
                  (test-header "Bcc: secret@example.net," "\tsecond@example.net"
                               "Cc: c@example.com")
                  nil mode)))
      (should-not (string-match-p "bcc\\|example\\.net" (downcase bytes))))))

(ert-deftest test-bytes-resent ()
  (let ((bytes (test-both-ways (test-header "Resent-To: r@example.net"
                                            "Resent-Bcc: b@example.net"
                                            "Resent-From: me@example.org"))))
    (should (string-search "Resent-To: r@example.net" bytes))
    (should-not (string-search "b@example.net" bytes))))

(ert-deftest test-bytes-fcc ()
  (let ((fcc (test-file "fcc")))
    (should-not (string-search "Fcc"
                               (test-both-ways (test-header (concat "Fcc: " fcc))
                                               "Grüße\n")))
    ;; One copy of each.
    (should (equal 4 (length (split-string (test-bytes fcc) "Message-ID: "))))))

(ert-deftest test-bytes-no-final-newline ()
  (test-both-modes
    (test-both-ways (test-header) "Hello,\n\nworld" mode)
    (test-both-ways (test-header) "\n\nend\n\n\n" mode)
    (test-both-ways (test-header) "" mode)))

(ert-deftest test-bytes-generated-fields ()
  (cl-letf (((symbol-function 'message-make-message-id)
             (lambda (&rest _) "<made@example.org>"))
            ((symbol-function 'message-make-date)
             (lambda (&rest _) "Sat, 01 Nov 2025 12:00:00 +0000")))
    (test-both-modes
      (test-both-ways (test-header
                       ;; From Emacs 29 to 30 message.el itself fails without From.
                       (if (and (eq mode 'message-mode)
                                (fboundp 'message-update-smtp-method-header))
                           "From: Me <me@example.org>"
                         "From:")
                       "Date:" "Message-ID:" "Subject: ")
                      nil mode))))

(ert-deftest test-bytes-raw ()
  (dolist (multibyte '(nil t))
    (test-with-server nil
      (setq test-foreign-connections '(1))
      (with-temp-buffer
        (set-buffer-multibyte multibyte)
        (insert "From: me@example.org\n\nraw: "
                (if multibyte (string-to-multibyte "\377\200\303") "\377\200\303")
                "\nend\n")
        (smtpmail-via-smtp '("you@example.com") (current-buffer))
        (rs-smtpmail-mode 1)
        (unwind-protect
            (smtpmail-via-smtp '("you@example.com") (current-buffer))
          (rs-smtpmail-mode -1)))
      (should (equal (plist-get (test-received 2) :bytes)
                     (plist-get (test-received 1) :bytes)))
      (should (string-search "raw: \377\200\303\r\n"
                             (plist-get (test-received 2) :bytes))))))

(ert-deftest test-bytes-envelope-sender ()
  (test-both-ways (test-header "From: Other <other@example.net>"))
  (let ((mail-specify-envelope-from t)
        (mail-envelope-from "bounces@example.net"))
    (test-both-ways (test-header)))
  (let ((mail-specify-envelope-from t)
        (mail-envelope-from 'header))
    (test-both-ways (test-header "From: Other <other@example.net>"))))

(ert-deftest test-bytes-null-sender ()
  (test-with-server nil
    (let ((mail-specify-envelope-from t)
          (mail-envelope-from ""))
      (test-send-synchronously (test-header)))
    (should (equal "" (plist-get (test-received 1) :sender)))))

(ert-deftest test-bytes-lisp-encoding-is-per-line-where-it-matters ()
  (let ((smtpmail-code-conv-from 'utf-16le-with-signature))
    (with-temp-buffer
      (insert "a\nb")
      (should (equal (rs-smtpmail--call-with-wire-bytes (current-buffer) #'identity)
                     "\377\376a\0\n\377\376b\0")))))

(ert-deftest test-bytes-large-message-is-handed-over-unchanged ()
  (let ((body (apply #'concat (make-list 20000 (concat (make-string 70 ?x) "ü\n")))))
    (test-with-server nil
      (test-send-synchronously (test-header) body)
      (should (string-suffix-p
               (replace-regexp-in-string "\n" "\r\n" (encode-coding-string body 'utf-8))
               (plist-get (test-received 1) :bytes))))))

(ert-deftest test-bytes-large-body-leaves-no-file-behind ()
  (let ((body (apply #'concat (make-list 2000 (concat (make-string 70 ?x) "\n")))))
    (cl-flet ((rest () (directory-files (expand-file-name "tmp" rs-smtpmail-spool-directory)
                                        nil "\\`body-"))
              (send () (test-send-synchronously (test-header) body)))
      (test-with-server nil
        (cl-letf* ((written nil)
                   (write-bytes (symbol-function 'rs-smtpmail--write-bytes))
                   ((symbol-function 'rs-smtpmail--write-bytes)
                    (lambda (file &rest region)
                      (apply write-bytes file region)
                      (setq written (cons (file-modes file) (rest))))))
          (send)
          (should (equal #o600 (car written)))
          (should (= 1 (length (cdr written)))))
        (should (string-suffix-p (string-replace "\n" "\r\n" body)
                                 (plist-get (test-received 1) :bytes)))
        (should-not (rest))
        (cl-letf (((symbol-function 'write-region)
                   (lambda (&rest _) (signal 'file-error '("No space left")))))
          (should (string-search "No space left" (test-error #'send))))
        (let ((smtpmail-stream-type 'pigeon))
          (should (string-search "pigeon" (test-error #'send))))
        (should-not (rest))
        (should-not (rs-smtp-queue-list))))))

(provide 'test-bytes)

;;; test-bytes.el ends here
