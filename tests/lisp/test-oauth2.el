;;; test-oauth2.el --- Access tokens from Lisp, commands and providers  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-engine)
(require 'rs-smtpmail-oauth2)

(defmacro test-with-token-server (&rest body)
  "Run BODY with a server that needs joe's access token, \"tok\"."
  (declare (indent 0))
  `(test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass"
                       "--mech" "XOAUTH2" "--token" "tok")
     (let ((smtpmail-smtp-user "joe")
           (rs-smtpmail-oauth2-token-function nil)
           (rs-smtpmail-oauth2-token-command nil))
       (auth-source-forget-all-cached)
       (unwind-protect
           (progn ,@body)
         (setq auth-sources nil)))))

(defun test-token-buffers ()
  "Return the buffers of commands for tokens."
  (seq-filter (lambda (buffer)
                (string-prefix-p " *rs-smtpmail-oauth2" (buffer-name buffer)))
              (buffer-list)))

;;;; Functions

(ert-deftest test-oauth2-function ()
  (test-with-token-server
    (let* (calls
           (rs-smtpmail-oauth2-token-function
            (lambda (user host) (push (list user host) calls) "tok\n")))
      (test-send-synchronously (test-header))
      (should (equal "joe" (plist-get (test-received 1) :user)))
      (should (equal '(("joe" "localhost")) calls)))))

(ert-deftest test-oauth2-refused-token-is-asked-for-once-more ()
  (test-with-token-server
    (let* ((tokens (list "stale" "tok" "never"))
           (rs-smtpmail-oauth2-token-function (lambda (&rest _) (pop tokens))))
      (test-send-synchronously (test-header))
      (should (equal '("never") tokens)))))

(ert-deftest test-oauth2-errors-of-the-function ()
  (test-with-token-server
    (dolist (case (list (cons (lambda (&rest _) (error "No luck")) "No luck")
                        (cons (lambda (&rest _) (signal 'quit nil)) "You have stopped")
                        (cons (lambda (&rest _) 17) "returned no string")
                        (cons (lambda (&rest _) "") "no access token")
                        (cons (lambda (&rest _) "a b") "no access token")))
      (let ((rs-smtpmail-oauth2-token-function (car case)))
        (should (string-search (cdr case)
                               (test-error #'test-send-synchronously (test-header)))))
      (test-empty-spool))))

(ert-deftest test-oauth2-no-token-means-auth-sources ()
  (test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass word")
    (let ((rs-smtpmail-oauth2-token-function #'ignore)
          (rs-smtpmail-oauth2-token-command '(("ann" . "echo tok"))))
      (setq auth-sources (list (test-file "authinfo")))
      (write-region "machine localhost login joe password \"pass word\"\n"
                    nil (car auth-sources))
      (unwind-protect
          (test-send-synchronously (test-header))
        (setq auth-sources nil))
      (should (equal "joe" (plist-get (test-received 1) :user))))))

;;;; Commands

(ert-deftest test-oauth2-commands-are-filled-in ()
  (dolist (case `((("x" "%u@%h" "100%") ("x" "j o@host" "100%"))
                  ("get %u '%%' %h"
                   (,shell-file-name ,shell-command-switch "get j\\ o '%%' host"))
                  ((("j o" . "a") ("host" "b" "%h"))
                   (,shell-file-name ,shell-command-switch "a"))
                  ((("ann" . "a") ("host" "b" "%h")) ("b" "host"))
                  ((("ann" . "a")) nil)
                  (nil nil)))
    (let ((rs-smtpmail-oauth2-token-command (car case)))
      (should (equal (cadr case) (rs-smtpmail-oauth2--command "j o" "host"))))))

(ert-deftest test-oauth2-command ()
  (test-with-token-server
    (dolist (rs-smtpmail-oauth2-token-command
             '("test %u%h = joelocalhost && echo tok && echo more; echo noise >&2"
               ("printf" "tok")
               (("joe" . "cat; echo tok"))
               (("localhost" "sh" "-c" "echo \" $0 \"" "tok"))))
      (test-send-synchronously (test-header)))
    (should (equal "joe" (plist-get (test-received 4) :user)))
    (should-not (test-token-buffers))))

(ert-deftest test-oauth2-emacs-does-not-wait-for-the-command ()
  (test-with-token-server
    (let* ((go (test-file "go"))
           (rs-smtpmail-synchronous nil)
           (rs-smtpmail-oauth2-token-command
            (format "until test -e %s; do sleep 0.1; done; echo tok" go)))
      (test-send #'rs-smtpmail-send-it (test-header))
      (sink-wait "the command" #'test-token-buffers)
      (should (memq (car (test-states)) '(pending sending)))
      (write-region "" nil go nil 'silent)
      (test-wait-for-state)
      (should (equal "joe" (plist-get (test-received 1) :user))))))

(ert-deftest test-oauth2-errors-of-the-command ()
  (test-with-token-server
    (dolist (case '(("echo tok; echo 'not today' >&2; exit 3"
                     . "ended with status 3: not today")
                    (("sh" "-c" "kill -9 $$") . "sh was killed")
                    ("true" . "printed no token")
                    (("/no/such/program") . "/no/such/program")
                    ;; One that leaves somebody behind with its standard error.
                    ("sleep 3 >/dev/null & echo left >&2; kill -0 $! && false"
                     . "ended with status 1: left")))
      (let* ((rs-smtpmail-oauth2-token-command (car case))
             (text (test-error #'test-send-synchronously (test-header))))
        (should (string-search (cdr case) text))
        (should (string-search "No access token for joe at localhost" text))
        (should-not (test-token-buffers)))
      (test-empty-spool))))

(ert-deftest test-oauth2-endless-command-is-killed ()
  (test-with-token-server
    (cl-letf* ((rs-smtpmail-oauth2-token-command '("sleep" "1000"))
               (run (symbol-function 'run-at-time))
               ((symbol-function 'run-at-time)
                (lambda (time repeat function &rest arguments)
                  (apply run (if (eql time rs-smtpmail-oauth2--patience) 0.1 time)
                         repeat function arguments))))
      (should (string-search "sleep was killed"
                             (test-error #'test-send-synchronously (test-header)))))))

;;;; Providers

(ert-deftest test-oauth2-entry-of-another-backend ()
  "An entry in JSON, in the form of auth-source-xoauth2-plugin."
  (let* (forms
         (endpoint (test-token-endpoint
                    (lambda (form)
                      (push form forms)
                      '("200 OK"
                        . "{\"access_token\":\"tok\",\"refresh_token\":\"new\"}"))))
         warnings)
    (unwind-protect
        (test-with-token-server
          (setq auth-sources (list (concat (test-file "authinfo") ".json")))
          (with-temp-file (car auth-sources)
            (insert (json-encode
                     `[((machine . "localhost") (login . "joe") (auth . "xoauth2")
                        (token-url . ,(format "http://127.0.0.1:%d/"
                                              (process-contact endpoint :service)))
                        (client-id . "me") (client-secret . "s")
                        (refresh-token . "old"))])))
          (setq warnings
                (test-with-warnings (test-send-synchronously (test-header))))
          (should (equal "joe" (plist-get (test-received 1) :user))))
      (delete-process endpoint))
    (should (equal '("grant_type=refresh_token&client_id=me&refresh_token=old&client_secret=s")
                   forms))
    (should (= 1 (length warnings)))
    (should (string-search "new refresh token for joe at localhost" (car warnings)))))

;;; test-oauth2.el ends here
