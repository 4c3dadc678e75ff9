;;; test-options.el --- What each option of smtpmail does here  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Commentary:

;; One test for each option in the table of the manual, but for those of the
;; envelope (test-addresses.el) and of where options are set (test-sending.el).

;;; Code:

(require 'helper)
(require 'rs-smtpmail-engine)
(require 'rs-smtpmail-obsolete)
(require 'rs-smtpmail-queue)

(ert-deftest test-options-are-all-documented ()
  "Each option that smtpmail has in the running Emacs is in the table."
  (let ((readme (test-bytes (expand-file-name "doc/rs-smtpmail.org" test-root))))
    (mapatoms
     (lambda (symbol)
       (when (and (custom-variable-p symbol)
                  (string-prefix-p "smtpmail-" (symbol-name symbol)))
         (ert-info ((symbol-name symbol))
           (should (string-search (format "| =%s=" symbol) readme))))))))

;;;; Which server

(ert-deftest test-options-server-of-the-environment ()
  "And of `smtpmail-default-smtp-server', set before smtpmail is loaded."
  (test-with-server nil
    (pcase-dolist (`(,default ,environment) '((nil "localhost") ("localhost" nil)
                                              ("nowhere.invalid" "localhost")))
      (let ((process-environment (if environment
                                     (cons (concat "SMTPSERVER=" environment)
                                           process-environment)
                                   process-environment))
            (form `(progn
                     ;; Loaded for the settings that we hand down.
                     (unload-feature 'smtpmail t)
                     (makunbound 'smtpmail-smtp-server)
                     (setq smtpmail-default-smtp-server ,default)
                     (require 'rs-smtpmail)
                     (require 'smtpmail)
                     (setq smtpmail-smtp-service ,smtpmail-smtp-service)
                     (with-temp-buffer
                       (insert "From: me@example.org\nTo: a@x.org\n"
                               mail-header-separator "\nHello\n")
                       (rs-smtpmail-send-it)))))
        (test-emacs-output form)))
    (should (= 3 (test-received-count)))))

(ert-deftest test-options-stream-types ()
  (dolist (case '(("starttls" nil) ("starttls" starttls) ("none" nil) ("none" plain)
                  ("implicit" ssl) ("implicit" tls)))
    (ert-info ((format "%S" case))
      (test-with-server (list "--tls" (car case))
        (let ((smtpmail-stream-type (cadr case)))
          (test-send-synchronously (test-header)))
        (should (eq (equal (car case) "none")
                    (null (plist-get (test-received 1) :tls))))))))

(ert-deftest test-options-services ()
  (test-with-server nil
    (dolist (service (list smtpmail-smtp-service
                           (number-to-string smtpmail-smtp-service)))
      (let ((smtpmail-smtp-service service))
        (test-send-synchronously (test-header))))
    (should (= 2 (test-received-count)))
    (let ((smtpmail-smtp-service "no such service"))
      (should (string-search "no such service"
                             (test-error #'test-send-synchronously (test-header)))))))

(ert-deftest test-options-helo-name ()
  (test-with-server nil
    (cl-letf (((symbol-function 'system-name) (lambda () "box")))
      (let ((smtpmail-local-domain "example.org"))
        (test-send-synchronously (test-header))))
    (should (equal "box.example.org" (plist-get (test-received 1) :helo)))))

;;;; Who logs in

(defun test-options-authinfo (&rest lines)
  "Return the name of a new authinfo file of LINES."
  (let ((file (test-file "authinfo")))
    (with-temp-file file
      (insert (mapconcat (lambda (line) (concat line "\n")) lines "")))
    file))

(ert-deftest test-options-smtp-user ()
  (test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass word")
    (let ((auth-sources (list (test-options-authinfo
                               "machine localhost login ann password other"
                               "machine localhost login joe password \"pass word\"")))
          (smtpmail-smtp-user "joe"))
      (test-send-synchronously (test-header))
      (should (equal "joe" (plist-get (test-received 1) :user)))
      (let ((smtpmail-smtp-user "nobody"))
        (should (string-search "localhost"
                               (test-error #'test-send-synchronously (test-header))))))))

(ert-deftest test-options-servers-requiring-authorization ()
  "Else a server that does not insist gets no password, found or asked for."
  (test-with-server nil
    (test-send-synchronously (test-header))
    (let ((smtpmail-servers-requiring-authorization "\\`elsewhere"))
      (test-send-synchronously (test-header)))
    (should (= 2 (test-received-count)))
    (let ((smtpmail-servers-requiring-authorization "\\`local"))
      (should (string-search "password"
                             (test-error #'test-send-synchronously (test-header)))))
    (should (equal '(needs-user) (test-states)))))

(ert-deftest test-options-auth-credentials ()
  "The last place to look, with a hint to leave it, once."
  (test-with-server '("--tls" "starttls" "--require-auth" "--auth" "joe:pass word")
    (let ((rs-smtpmail--obsolete-hints nil)
          (port smtpmail-smtp-service))
      (unwind-protect
          (let ((warnings
                 (test-with-warnings
                   (set 'smtpmail-auth-credentials
                        `(("localhost" 1 "ann" "wrong")
                          ("localhost" ,port "joe" "pass word")))
                   (dotimes (_ 2)
                     (test-send-synchronously (test-header))
                     (rs-smtp-queue-flush)))))
            (should (equal "joe" (plist-get (test-received 2) :user)))
            (should (= 1 (length warnings)))
            (should (string-search "smtpmail-auth-credentials" (car warnings)))
            (should (string-search (format "machine localhost port %d login joe" port)
                                   (car warnings)))
            (should-not (string-search "pass word" (car warnings)))
            ;; As the name of a file, as was the default once.
            (set 'smtpmail-auth-credentials
                 (test-options-authinfo
                  "machine localhost login joe password \"pass word\""))
            (test-send-synchronously (test-header))
            ;; auth-sources come first.
            (set 'smtpmail-auth-credentials `(("localhost" ,port "ann" "wrong")))
            (let ((auth-sources (list (test-options-authinfo
                                       "machine localhost login joe password \"pass word\""))))
              (test-send-synchronously (test-header)))
            (should (= 4 (test-received-count))))
        (makunbound 'smtpmail-auth-credentials)))))

(ert-deftest test-options-auth-credentials-that-fit ()
  (let ((rs-smtpmail--obsolete-hints '(smtpmail-auth-credentials)))
    (cl-progv '(smtpmail-auth-credentials)
        '((("h" 25 "ann" "a") ("h" "smtp" "joe" "") ("i" 25 "eve" nil)))
      (pcase-dolist (`(,host ,port ,user ,expected)
                     '(("h" "25" nil (:user "ann" :secret "a"))
                       ("h" "25" "ann" (:user "ann" :secret "a"))
                       ("h" "25" "joe" nil)
                       ("h" "smtp" nil (:user "joe" :secret nil))
                       ("i" "25" nil (:user "eve" :secret nil))
                       ("h" "587" nil nil)))
        (should (equal expected (rs-smtpmail--obsolete-credentials host port user)))))))

(ert-deftest test-options-starttls-credentials ()
  (let ((rs-smtpmail--obsolete-hints nil)
        (key (test-options-authinfo))
        (certificate (test-options-authinfo)))
    (should-not (rs-smtpmail--obsolete-certificate "h" "25"))
    (cl-progv '(smtpmail-starttls-credentials)
        `((("h" 25 ,key ,certificate) ("i" 25 "/no/such" ,certificate) ("j" 25 "" "")))
      (let ((warnings
             (test-with-warnings
               (dotimes (_ 2)
                 (should (equal (list key certificate)
                                (rs-smtpmail--obsolete-certificate "h" "25"))))
               (dolist (host '("i" "j" "k"))
                 (should-not (rs-smtpmail--obsolete-certificate host "25"))))))
        (should (= 1 (length warnings)))
        (should (string-search (format "machine h port 25 key %s cert %s" key certificate)
                               (car warnings)))))))

;;;; What is sent

(ert-deftest test-options-sendto-domain ()
  (test-with-server nil
    (let ((smtpmail-sendto-domain "example.net")
          (to (test-header "To: root, a@x.org, \"john doe\"" "Cc: root@example.net")))
      (test-send-synchronously to)
      (should (equal '("root@example.net" "a@x.org" "\"john doe\"@example.net")
                     (plist-get (test-received 1) :recipients))))
    (test-send-synchronously (test-header "To: root"))
    (should (equal '("root") (plist-get (test-received 2) :recipients)))))

(ert-deftest test-options-code-conv-from ()
  (test-with-server nil
    (pcase-dolist (`(,coding ,bytes) '((iso-8859-1 "Gr\374\337e") (utf-8 "Gr\303\274\303\237e")))
      (let ((smtpmail-code-conv-from coding))
        (test-send-synchronously (test-header) "Grüße\n"))
      (should (string-search bytes (plist-get (test-received (test-received-count))
                                              :bytes))))))

;;;; The queue

(ert-deftest test-options-queue ()
  (test-with-server nil
    (let ((smtpmail-queue-mail t)
          (smtpmail-queue-dir (file-name-as-directory (test-file "my-queue")))
          (smtpmail-queue-index-file "contents")
          (smtpmail-smtp-user "joe"))
      (dolist (smtpmail-store-queue-variables '(nil t))
        (test-send-synchronously (test-header)))
      (should (= 0 (test-received-count)))
      (let* ((lines (split-string (test-bytes (expand-file-name "contents"
                                                                smtpmail-queue-dir))
                                  "\n" t))
             (stored (mapcar (lambda (line)
                               (rs-smtpmail--stored-values (concat line ".el")))
                             lines)))
        (should (equal (mapcar #'length stored) '(1 5)))
        (should (equal (alist-get 'smtpmail-smtp-user (cadr stored)) "joe"))
        (should (equal (alist-get 'smtpmail-smtp-service (cadr stored))
                       smtpmail-smtp-service)))
      (let ((smtpmail-smtp-user nil)
            (rs-smtpmail-synchronous t))
        (rs-smtpmail-send-queued-mail)))
    (should (= 2 (test-received-count)))))

;;;; Trying again

(defun test-attempts (retries &rest rules)
  "Send to a server with RULES while `smtpmail-retries' is RETRIES.
Return how often the server was told the sender, and the error, if any."
  (let ((rs-smtpmail--retry-pause 0.01)
        (smtpmail-retries retries)
        (smtpmail-debug-info t)
        (trace (get-buffer-create "*trace of SMTP session to localhost*")))
    (with-current-buffer trace (erase-buffer))
    (test-with-server (apply #'test-script rules)
      (let ((text (condition-case err
                      (progn (test-send-synchronously
                              (test-header "To: a@x.org, b@x.org"))
                             nil)
                    (error (error-message-string err)))))
        (rs-smtpmail--wake)
        (rs-smtpmail--handle-events)
        (list (with-current-buffer trace
                (how-many "MAIL FROM:" (point-min) (point-max)))
              text)))))

(ert-deftest test-options-retries ()
  (pcase-let ((`(,attempts ,text) (test-attempts 3 '(:stage "mail" :reply "451 4.3.0 Later"))))
    (should (= 3 attempts))
    (should (string-search "451 4.3.0 Later" text))
    ;; It is in the spool, for later.
    (should (string-search "tried again at" text)))
  (should (equal '(2 nil)
                 (test-attempts 3 '(:stage "mail" :times "once" :reply "451 Later"))))
  (should (equal '(2 nil)
                 (test-attempts 3 '(:stage "rcpt" :match "b@" :times "once"
                                    :reply "450 Greylisted"))))
  ;; The one is refused for good, so that the user must see it, as far as it is known.
  (should (= 1 (car (test-attempts 3 '(:stage "rcpt" :match "a@" :reply "550 Nobody")
                                   '(:stage "rcpt" :match "b@" :reply "450 Later")))))
  (should (= 1 (car (test-attempts 3 '(:stage "mail" :reply "550 No")))))
  (should (= 1 (car (test-attempts 1 '(:stage "mail" :reply "451 Later"))))))

(ert-deftest test-options-retries-are-for-replies-only ()
  "Not for a server that is not there."
  (test-with-server nil
    (delete-process test-server)
    (let ((rs-smtpmail--retry-pause 600)
          (smtpmail-retries 10))
      (should (string-search "refused"
                             (test-error #'test-send-synchronously (test-header)))))))

(ert-deftest test-options-retries-can-be-quit ()
  (test-with-server (test-script '(:stage "mail" :reply "451 Later"))
    (let ((rs-smtpmail--retry-pause 600)
          (smtpmail-retries 10)
          ;; Other than C-g, the flag is seen only when something happens.
          (ticks (run-at-time 0.1 0.1 #'ignore)))
      (run-at-time 0.05 nil
                   (lambda ()
                     (test-wait-for-state 'pending)
                     (sink-wait "an attempt"
                                (lambda ()
                                  (= 1 (plist-get (car (rs-smtp-queue-list)) :attempts))))
                     (setq quit-flag t)))
      (unwind-protect
          (should (string-search "on hold"
                                 (condition-case err
                                     (test-send-synchronously (test-header))
                                   (quit (cadr err)))))
        (cancel-timer ticks))
      (should (equal '(held) (test-states))))))

;;;; For developers

(ert-deftest test-options-debugging ()
  (let ((buffer (get-buffer-create "*trace of SMTP session to localhost*"))
        (rules (test-script '(:stage "ehlo" :reply ("250-localhost" "250-VERB" "250 XFOO")))))
    (test-with-server rules
      (dolist (smtpmail-debug-info '(nil t))
        (with-current-buffer buffer (erase-buffer))
        (let ((smtpmail-debug-verb t)
              (smtpmail-warn-about-unknown-extensions t))
          (test-send-synchronously (test-header)))
        (rs-smtpmail--wake)
        (rs-smtpmail--handle-events)
        (with-current-buffer buffer
          (goto-char (point-min))
          (should (eq smtpmail-debug-info
                      (and (search-forward "XFOO" nil t) t)))
          (should-not (re-search-forward "^[^0-9]*VERB" nil t))))
      (should (= 2 (test-received-count))))))

(provide 'test-options)

;;; test-options.el ends here
