;;; test-gpg.el --- Encrypted authinfo with a real GnuPG  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Another Emacs sends with an encrypted authinfo file; its user is asked for
;; passphrases in the minibuffer.  What GnuPG can say is tested in Rust.

;;; Code:

(require 'helper)

(defconst test-gpg-passphrase "correct h\u00F6rse")

(defun test-gpg-run (input &rest arguments)
  "Run gpg with ARGUMENTS and the text INPUT."
  (with-temp-buffer
    (insert input)
    (let* ((coding-system-for-write 'utf-8)
           (status (apply #'call-process-region nil nil "gpg" t t nil
                          "--batch" "--quiet" "--pinentry-mode" "loopback" arguments)))
      (ert-info ((buffer-string))
        (should (eq 0 status))))))

(defun test-gpg-make-key ()
  "Make a key without a passphrase; see `test-gpg-to-key'."
  (test-gpg-run "" "--passphrase" "" "--quick-gen-key" "<me@example.org>"
                "future-default" "default" "never"))

(defconst test-gpg-to-key
  '("--trust-model" "always" "--recipient" "me@example.org" "--encrypt")
  "Arguments for encrypting with the key of `test-gpg-make-key'.")

(defun test-gpg-authinfo (&rest arguments)
  "Return an authinfo file with the right password, encrypted with ARGUMENTS."
  (let ((file (concat (test-file "authinfo") ".gpg")))
    (apply #'test-gpg-run "machine localhost login joe password \"pass word\"\n"
           "--output" file arguments)
    file))

(defun test-gpg-session (source typed)
  "Have another Emacs send with SOURCE, once for each of TYPED and once more.
TYPED are what its user answers when asked: a string, or nil for quitting.
Return what it printed."
  (let ((auth-sources (list source))
        (rs-smtpmail-spool-directory (test-file "spool")))
    (test-emacs-output
     `(progn
        (require 'rs-smtpmail)
        (require 'epg)
        (when (memq 'password-store auth-sources)
          (require 'auth-source-pass)
          (auth-source-pass-enable))
        (setq noninteractive nil
              rs-smtpmail-synchronous t
              epg-pinentry-mode 'loopback
              test-typed ',typed)
        (fset 'read-passwd
              (lambda (prompt &rest _)
                (princ (format "Asked: %s\n" prompt))
                (or (pop test-typed) (signal 'quit nil))))
        (dotimes (_ ,(max 1 (length typed)))
          (condition-case err
              (with-temp-buffer
                (insert "From: me@example.org\nTo: you@example.com\nSubject: Test\n"
                        mail-header-separator "\nHello\n")
                (rs-smtpmail-send-it))
            (error (princ (format "%s\n" (error-message-string err))))))
        ;; Else it would wait for commands now.
        (setq noninteractive t)))))

(defmacro test-gpg-with-home (&rest body)
  "Run BODY with a server that needs a password, and a GnuPG home of its own."
  (declare (indent 0))
  `(let ((process-environment
          (append (list (concat "GNUPGHOME=" (test-new-directory "gnupg"))
                        "LC_ALL=C.UTF-8")
                  process-environment)))
     (set-file-modes (getenv "GNUPGHOME") #o700)
     ;; What it asks for in vain is not to end on the screen.
     (with-temp-file (expand-file-name "gpg-agent.conf" (getenv "GNUPGHOME"))
       (insert "allow-loopback-pinentry\npinentry-program /nonexistent/pinentry\n"))
     (unwind-protect
         (test-with-server '("--tls" "starttls" "--require-auth"
                             "--auth" "joe:pass word")
           ,@body)
       (call-process "gpgconf" nil nil nil "--kill" "all"))))

(ert-deftest test-gpg-key-without-passphrase ()
  (skip-unless (rs-smtp--can-decrypt-p))
  (test-gpg-with-home
    (test-gpg-make-key)
    (should-not
     (string-search "Asked" (test-gpg-session
                             (apply #'test-gpg-authinfo test-gpg-to-key)
                             nil)))
    (should (= 1 (test-received-count)))))

(ert-deftest test-gpg-passphrase-in-the-minibuffer ()
  "A wrong one and none are told from a wrong password of the server."
  (skip-unless (rs-smtp--can-decrypt-p))
  (test-gpg-with-home
    (let* ((file (test-gpg-authinfo "--passphrase" test-gpg-passphrase "--symmetric"))
           (output (test-gpg-session
                    file (list "wr0ng passphrase" nil test-gpg-passphrase))))
      (ert-info (output)
        (should (= 3 (cl-count-if (lambda (line)
                                    (string-prefix-p "Asked: Passphrase for" line))
                                  (split-string output "\n"))))
        (should (string-match-p (concat "cannot decrypt " (regexp-quote file)
                                        ": the passphrase (or PIN) was wrong")
                                output))
        (should (string-match-p (concat "cannot decrypt " (regexp-quote file)
                                        ": no passphrase was given")
                                output))
        (should-not (string-search "refused user name or password" output))
        (should-not (string-search "wr0ng passphrase" output))
        (should-not (string-search test-gpg-passphrase output)))
      (should (= 1 (test-received-count))))))

;; The directory of pass, the standard Unix password manager, as Emacs reads it.
(ert-deftest test-gpg-password-store ()
  (test-gpg-with-home
    (test-gpg-make-key)
    (let* ((store (test-new-directory "password-store"))
           (process-environment
            (cons (concat "PASSWORD_STORE_DIR=" store) process-environment)))
      (apply #'test-gpg-run "pass word\nuser: joe\n"
             "--output" (expand-file-name "localhost.gpg" store) test-gpg-to-key)
      (let ((output (test-gpg-session 'password-store nil)))
        (ert-info (output)
          (should-not (string-search "Asked" output))
          (should-not (string-search "pass word" output))
          (should (equal "joe" (plist-get (test-received 1) :user))))))))

(provide 'test-gpg)

;;; test-gpg.el ends here
