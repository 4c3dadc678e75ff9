;;; test-secrecy.el --- No secret gets out  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; Another Emacs, with the trace on, logs in with a wrong secret and then with
;; the right one, and prints all that it can see of it.  The secrets are sought
;; in that and in every file it has written, as they are and in base64.

;;; Code:

(require 'helper)
(require 'url-util)

;;;; Seeking

(defun test-secrecy-base64 (bytes offset)
  "Return what base64 has of BYTES alone where they stand behind OFFSET others."
  (let ((encoded (base64-encode-string (concat (make-string offset ?x) bytes) t)))
    (substring encoded
               (/ (+ (* 8 offset) 5) 6)
               (/ (* 8 (+ offset (length bytes))) 6))))

(defun test-secrecy-forms (user secret)
  "Return the forms, unibyte strings, in which SECRET of USER could get out."
  (let ((bytes (encode-coding-string secret 'utf-8)))
    (list bytes
          (prin1-to-string bytes)
          (test-secrecy-base64 bytes 0)
          (test-secrecy-base64 bytes 1)
          (test-secrecy-base64 bytes 2)
          (base64-encode-string (concat "\0" user "\0" bytes) t))))

(defun test-secrecy-leaks (forms bytes)
  "Return those of FORMS that are in BYTES."
  (seq-filter (lambda (form) (string-search form bytes)) forms))

(defun test-secrecy-leaking-files (forms directory)
  "Return the files below DIRECTORY that have one of FORMS, in text or name."
  (seq-filter (lambda (file)
                (or (test-secrecy-leaks forms (encode-coding-string file 'utf-8))
                    (and (file-regular-p file)
                         (test-secrecy-leaks forms (test-bytes file)))))
              (directory-files-recursively directory "" t)))

(ert-deftest test-secrecy-a-planted-secret-is-found ()
  (let* ((secret "pl\u00E4nted s3cret")
         (bytes (encode-coding-string secret 'utf-8))
         (forms (test-secrecy-forms "joe" secret))
         (directory (test-new-directory "planted")))
    (should-not (test-secrecy-leaks forms "innocent"))
    (dolist (plant (list bytes
                         (concat "xx" bytes "yy")
                         (base64-encode-string bytes)
                         (base64-encode-string (concat "joe" bytes))
                         (base64-encode-string (concat "\0joe\0" bytes))
                         (base64-encode-string (concat "user=joe\1auth=Bearer "
                                                       bytes "\1\1"))
                         (base64-encode-string (concat "1234" bytes "789"))))
      (ert-info ((format "%S" plant))
        (should (test-secrecy-leaks forms (concat "before " plant "after")))
        (let ((file (expand-file-name "deep/below/file" directory)))
          (make-directory (file-name-directory file) t)
          (with-temp-file file
            (set-buffer-multibyte nil)
            (insert plant))
          (should (equal (list file) (test-secrecy-leaking-files forms directory)))
          (delete-file file))))))

;;;; A session with secrets

(defconst test-secrecy-wrong "wr0ng-Gu\u00EBss/77")
(defconst test-secrecy-right "r1ght Secr\u00E9t+42")
(defconst test-secrecy-token "ya29.T0ken-of~the_best_kind")
(defconst test-secrecy-client "cl1ent-s3cret")

(defun test-secrecy-form (authinfo right preparation)
  "Return a form that logs in with AUTHINFO, in vain, and then as RIGHT says.
It evaluates PREPARATION, a form, first, and prints all that there is to see."
  `(let ((smtpmail-debug-info t)
         (auth-source-debug t)
         (events nil)
         (entries nil))
     (require 'rs-smtpmail-engine)
     (require 'rs-smtpmail-watch)
     (require 'rs-smtpmail-queue)
     (rs-smtp-version)
     (advice-add 'rs-smtp--drain :filter-return
                 (lambda (drained) (push (copy-sequence drained) events) drained))
     ,preparation
     (cl-flet ((look ()
                 (push (rs-smtp-queue-list) entries)
                 (copy-directory rs-smtpmail-spool-directory (make-temp-name "~/spool-"))
                 (let ((buffer (rs-smtpmail-check-server
                                (list :host smtpmail-smtp-server
                                      :port smtpmail-smtp-service))))
                   (while rs-smtpmail--checks
                     (accept-process-output nil 0.05))
                   (display-warning 'rs-smtpmail
                                    (with-current-buffer buffer (buffer-string)))))
               (send ()
                 (condition-case err
                     (with-temp-buffer
                       (insert "From: me@example.org\nTo: you@example.com\n"
                               "Subject: Test\n" mail-header-separator "\nHello\n")
                       (rs-smtpmail-send-it)
                       (message "It was sent"))
                   (error (message "Error: %S" err)
                          (display-warning 'rs-smtpmail (format "%S" err))))))
       (send)
       (look)
       (copy-file ,right ,authinfo t)
       (dolist (entry (rs-smtp-queue-list))
         (rs-smtpmail-retry (plist-get entry :id)))
       (while (rs-smtp-queue-list)
         (accept-process-output nil 0.05))
       (send)
       (look))
     (dolist (buffer (buffer-list))
       (princ (format "\n==== %s\n%s" buffer
                      (with-current-buffer buffer (buffer-string)))))
     (mapatoms (lambda (symbol)
                 (when (and (boundp symbol)
                            (string-prefix-p "rs-smtp" (symbol-name symbol)))
                   (print symbol)
                   (prin1 (symbol-value symbol)))))
     (prin1 events)
     (prin1 entries)
     ;; Else it would wait for commands now.
     (setq noninteractive t)))

(defun test-secrecy-session (arguments user wrong right more
                                       &optional preparation sights field)
  "Have another Emacs log in to a server started with ARGUMENTS.
First as USER with the secret WRONG, then with RIGHT; MORE is the rest
of the entry in authinfo, whose FIELD the secret is, or \"password\".
PREPARATION is a function that gets the files with WRONG and RIGHT, and
returns a form evaluated before.
Check that neither secret gets out, but SIGHTS, texts, do.  Return what was
printed."
  (test-with-server (append '("--tls" "starttls" "--require-auth") arguments)
    (let* ((home (test-new-directory "home"))
           (rs-smtpmail-spool-directory (expand-file-name "spool/" home))
           (line (lambda (secret)
                   (let ((file (test-file "authinfo"))
                         (coding-system-for-write 'utf-8))
                     (with-temp-file file
                       (insert (format "machine localhost login %s %s \"%s\" %s\n"
                                       user (or field "password") secret more)))
                     file)))
           (authinfo (funcall line wrong))
           (correct (funcall line right))
           (auth-sources (list authinfo))
           (process-environment
            `(,(concat "HOME=" home) "LC_ALL=C.UTF-8" ,@process-environment))
           (output (test-emacs-output
                    (test-secrecy-form authinfo correct
                                       (and preparation
                                            (funcall preparation authinfo correct)))))
           (bytes (encode-coding-string output 'utf-8))
           (forms (append (test-secrecy-forms user wrong)
                          (test-secrecy-forms user right))))
      ;; All was there that could have told.
      (dolist (sight `("*trace of SMTP session to localhost*" "AUTH" "<omitted>"
                       ,@(unless field '("535"))
                       "*check of localhost:" "*Messages*" ":event sent" "It was sent"
                       ,@sights))
        (ert-info ((concat sight " in " output))
          (should (string-search sight output))))
      (should (= 2 (test-received-count)))
      (should (equal user (plist-get (test-received 1) :user)))
      (should (directory-files-recursively home "" nil))
      (should-not (test-secrecy-leaks forms bytes))
      (should-not (test-secrecy-leaking-files forms home))
      output)))

(defmacro test-secrecy-define (name arguments right &optional more)
  "Define a test of the mechanism NAME with a server started with ARGUMENTS.
RIGHT is the right secret, MORE the rest of the entry in authinfo."
  `(ert-deftest ,(intern (format "test-secrecy-%s" (downcase name))) ()
     (let ((output (test-secrecy-session
                    (list "--mech" ,name ,@arguments)
                    "joe" test-secrecy-wrong ,right ,(or more "") nil
                    '("FAILED" "logged in as" ":event needs-user"))))
       (should (string-search ,(concat "AUTH " name) output)))))

(defmacro test-secrecy-define-password (name)
  "Define a test of the mechanism NAME, for a password."
  `(test-secrecy-define ,name ("--auth" (concat "joe:" test-secrecy-right))
                        test-secrecy-right))

(test-secrecy-define-password "PLAIN")
(test-secrecy-define-password "LOGIN")
(test-secrecy-define-password "CRAM-MD5")
(test-secrecy-define-password "SCRAM-SHA-256")
(test-secrecy-define "XOAUTH2" ("--auth" "joe:unused" "--token" test-secrecy-token)
                     test-secrecy-token "smtp-auth xoauth2")

(test-secrecy-define "OAUTHBEARER" ("--auth" "joe:unused" "--token" test-secrecy-token)
                     test-secrecy-token "smtp-auth oauthbearer")

(defun test-secrecy-token-answer (form)
  "Answer FORM, a request for a token, and repeat a refused refresh token."
  (if (string-search (url-hexify-string test-secrecy-right)
                     (string-replace "+" "%20" form))
      (cons "200 OK" (json-encode `((access_token . ,test-secrecy-token)
                                    (expires_in . 3600))))
    (cons "400 Bad Request"
          (json-encode `((error . "invalid_grant")
                         (error_description . ,test-secrecy-wrong))))))

(ert-deftest test-secrecy-refresh-token ()
  "The secrets are a refresh token, and an access token got for it."
  (let ((endpoint (test-token-endpoint #'test-secrecy-token-answer)))
    (unwind-protect
        (let ((output
               (test-secrecy-session
                (list "--mech" "XOAUTH2" "--auth" "joe:unused" "--token" test-secrecy-token)
                "joe" test-secrecy-wrong test-secrecy-right
                (format "token-url http://127.0.0.1:%d/ client-id me client-secret %s"
                        (process-contact endpoint :service) test-secrecy-client)
                nil '("AUTH XOAUTH2" "FAILED" "logged in as" "invalid_grant")
                "refresh-token")))
          (dolist (secret (list test-secrecy-token test-secrecy-client))
            (should-not (test-secrecy-leaks (test-secrecy-forms "joe" secret)
                                            (encode-coding-string output 'utf-8)))))
      (delete-process endpoint))))

(ert-deftest test-secrecy-asked-for ()
  "What the user types, and has saved."
  (test-secrecy-session
   (list "--auth" (concat "joe:" test-secrecy-right))
   "joe" test-secrecy-wrong test-secrecy-right ""
   (lambda (wrong right)
     `(progn
        (setq noninteractive nil
              auth-source-save-behavior t
              rs-smtpmail-synchronous t
              smtpmail-smtp-user "joe"
              auth-sources (list (list :source (concat ,wrong "-saved")))
              test-typed (mapcar (lambda (file)
                                   (with-temp-buffer
                                     (insert-file-contents file)
                                     (re-search-forward "\"\\(.*\\)\"")
                                     (match-string 1)))
                                 '(,wrong ,right)))
        (fset 'read-passwd (lambda (&rest _) (pop test-typed)))))
   '(":event credentials" ":rejected \"535" ":event credentials-accepted")))

(ert-deftest test-secrecy-server-that-repeats-what-it-refuses ()
  (let ((wrong (encode-coding-string test-secrecy-wrong 'utf-8)))
    (pcase-dolist (`(,mechanism ,rule ,response)
                   `(("PLAIN" (:stage "auth") ,(concat "\0joe\0" wrong))
                     ("LOGIN" (:stage "auth-response" :nth 2) ,wrong)))
      (test-secrecy-session
       (append (list "--mech" mechanism "--auth" (concat "joe:" test-secrecy-right))
               (test-script
                (append rule (list :times "once"
                                   :reply (format "535 5.7.8 %s is %s"
                                                  (base64-encode-string response t)
                                                  test-secrecy-wrong)))))
       "joe" test-secrecy-wrong test-secrecy-right "" nil
       '("5.7.8 <omitted> is <omitted>" ":event needs-user")))))

(provide 'test-secrecy)

;;; test-secrecy.el ends here
