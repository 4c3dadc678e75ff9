;;; test-tls.el --- Certificates: asking, pins, Emacs's own settings  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'nsm)

(defvar smtpmail-starttls-credentials)
(require 'rs-smtpmail-native)

(defmacro test-with-tls-server (kind &rest body)
  "Run BODY with a server whose certificate is of KIND."
  (declare (indent 1) (debug t))
  `(let ((custom-file (test-file "custom"))
         (user-init-file (test-file "init")) ; else nothing is saved
         (nsm-settings-file (test-file "nsm"))
         (nsm-permanent-host-settings nil)
         (nsm-temporary-host-settings nil)
         (rs-smtpmail-tls-pins nil))
     (test-with-server (list "--tls" "implicit" "--cert" ,kind)
       (let ((smtpmail-stream-type 'ssl))
         (unwind-protect
             (progn ,@body)
           (rs-smtp--forget-tls (list :host smtpmail-smtp-server
                                      :port smtpmail-smtp-service)))))))

(defmacro test-with-choice (choice &rest body)
  "Run BODY as in an interactive Emacs whose user makes CHOICE, a character.
The variable `questions' holds the prompts and what was shown with them."
  (declare (indent 1) (debug t))
  `(let ((noninteractive nil)
         (inhibit-message t)
         questions)
     (cl-letf (((symbol-function 'read-multiple-choice)
                (lambda (prompt choices)
                  (push (cons prompt (with-current-buffer (window-buffer)
                                       (buffer-string)))
                        questions)
                  (if (eq ,choice 'quit)
                      (signal 'quit nil)
                    (or (assq ,choice choices) (error "No such choice"))))))
       ,@body)))

(defun test-endpoint ()
  "Return the server's name as in `rs-smtpmail-tls-pins'."
  (format "localhost:%d" smtpmail-smtp-service))

(defun test-how-many (regexp text)
  "Return how often REGEXP matches in TEXT."
  (with-temp-buffer
    (insert text)
    (how-many regexp (point-min) (point-max))))

(ert-deftest test-tls-asked-and-trusted-for-this-session ()
  (test-with-tls-server "self-signed"
    (test-with-choice ?s
      (test-send-synchronously (test-header))
      (should (= 1 (length questions)))
      (pcase-let ((`(,prompt . ,shown) (car questions)))
        (should (equal prompt (format "Trust the certificate of %s?" (test-endpoint))))
        (dolist (text '("self-signed, so nobody" "Subject: CN=localhost"
                        "Issuer:  CN=localhost" "Valid:   2001-01-01 to 2049-01-01"
                        "For:     localhost, 127.0.0.1, ::1"))
          (should (string-search text shown)))
        (should (= 2 (test-how-many "^  \\(?:[0-9A-F]\\{2\\}:\\)\\{31\\}[0-9A-F]\\{2\\}$"
                                  shown))))
      (test-send-synchronously (test-header))
      (should (= 1 (length questions)))
      (should (= 2 (test-received-count)))
      (should-not rs-smtpmail-tls-pins)
      (should-not (get-buffer (format "*certificate of %s*" (test-endpoint)))))))

(ert-deftest test-tls-always-is-a-pin ()
  (test-with-tls-server "expired"
    (test-with-choice ?a
      (test-send-synchronously (test-header))
      (should (= 1 (length questions)))
      (should (string-search "has expired (its last day: 2002-01-01)"
                             (cdar questions)))
      (should (equal (test-endpoint) (caar rs-smtpmail-tls-pins)))
      (should (string-match-p "\\`\\(?:[0-9A-F]\\{2\\}:\\)\\{31\\}[0-9A-F]\\{2\\}\\'"
                              (cdar rs-smtpmail-tls-pins)))
      (should (string-search (cdar rs-smtpmail-tls-pins) (test-bytes custom-file)))
      ;; The pin alone will do.
      (rs-smtp--forget-tls (list :host "localhost" :port smtpmail-smtp-service))
      (test-send-synchronously (test-header))
      (should (= 1 (length questions)))
      ;; In dotfiles it may look otherwise.
      (rs-smtp--forget-tls (list :host "localhost" :port smtpmail-smtp-service))
      (setq rs-smtpmail-tls-pins
            (list (list (upcase (test-endpoint))
                        (make-string 64 ?0)
                        (downcase (string-replace ":" "" (cdar rs-smtpmail-tls-pins))))))
      (test-send-synchronously (test-header))
      (should (= 1 (length questions)))
      (should (= 3 (test-received-count))))))

(ert-deftest test-tls-changed-key-is-an-alarm ()
  (test-with-tls-server "good"
    (setq rs-smtpmail-tls-pins (list (cons (test-endpoint) (make-string 64 ?0))))
    (test-with-choice ?n
      (let ((text (test-error #'test-send-synchronously (test-header))))
        (should (string-search "ALARM: the server's key is not the one you have pinned" text))
        (should (string-search "(You refused it)" text)))
      (should (equal (format "ALARM: trust the new key of %s?" (test-endpoint))
                     (caar questions)))
      (should (eq 'error (get-text-property (string-search "ALARM" (cdar questions))
                                            'face (cdar questions)))))
    (should (equal '(needs-user) (test-states)))
    (test-with-choice ?a
      (rs-smtpmail-retry (plist-get (car (rs-smtp-queue-list)) :id))
      (test-wait-for-state)
      (should (= 1 (length questions)))
      (should-not (string-search "000000" (cdar rs-smtpmail-tls-pins)))
      (should (= 1 (length rs-smtpmail-tls-pins))))
    (should (= 1 (test-received-count)))))

(ert-deftest test-tls-malformed-pin ()
  (test-with-tls-server "good"
    (dolist (pins '((("localhost:465" . "xyz")) (("localhost" . "00"))))
      (let ((rs-smtpmail-tls-pins pins))
        (should (string-prefix-p "rs-smtpmail-tls-pins: "
                                 (cadr (should-error
                                        (test-send-synchronously (test-header))
                                        :type 'rs-smtp-config-error))))))
    (should-not (rs-smtp-queue-list))))

(ert-deftest test-tls-question-is-quit ()
  (test-with-tls-server "wrong-host"
    (test-with-choice 'quit
      (let ((text (test-error #'test-send-synchronously (test-header))))
        (should (string-search "is not for localhost but for mail.wrong.example" text))
        (should (string-search "(You did not say whether to trust it)" text))))
    (should (equal '(needs-user) (test-states)))))

(ert-deftest test-tls-asked-in-the-background-when-the-user-is-there ()
  "While the mail waits visibly."
  (test-with-tls-server "self-signed"
    (let (is-there)
      (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p) (lambda (_) is-there)))
        (test-with-choice ?s
          (let ((rs-smtpmail-synchronous nil))
            (test-send #'rs-smtpmail-send-it (test-header))
            (test-wait-for-state 'needs-user)
            (should-not questions)
            (should (string-search "self-signed"
                                   (plist-get (car (rs-smtp-queue-list)) :error)))
            (setq is-there t)
            (test-wait-for-state)
            (should (= 1 (length questions)))
            (should (= 1 (test-received-count)))))))))

(ert-deftest test-tls-batch-refuses-and-says-what-to-do ()
  (test-with-tls-server "self-signed"
    (let ((text (let ((noninteractive t))
                  (test-error #'test-send-synchronously (test-header)))))
      (should (string-search (format "(setf (alist-get \"%s\" rs-smtpmail-tls-pins"
                                     (test-endpoint))
                             text))
      (should (string-search "(Nobody can be asked in batch Emacs)" text))
      ;; And the advice works as it stands.
      (string-match "(setf (alist-get .*? #'equal) \".*?\")" text)
      (eval (read (match-string 0 text)) t))
    (rs-smtpmail-retry (plist-get (car (rs-smtp-queue-list)) :id))
    (test-wait-for-state)
    (should (= 1 (test-received-count)))))

(ert-deftest test-tls-verify-error ()
  (dolist (case '((nil (expired) nil)
                  (t (expired) t)
                  (t (changed) nil)
                  (((".*" t)) (wrong-name) t)
                  ((("\\`box" :trustfiles)) (unknown-issuer) nil)
                  ((("host" :trustfiles)) (unknown-issuer) t)
                  ((("host" (:trustfiles))) (self-signed) t)
                  ((("host" :trustfiles)) (wrong-name) nil)
                  ((("host" :hostname)) (wrong-name) t)
                  ((("host" :hostname)) (expired) nil)
                  ((("host") ("host" t)) (expired) nil)))
    (pcase-let ((`(,gnutls-verify-error ,problems ,expected) case))
      (ert-info ((format "%S" case))
        (should (eq expected (and (rs-smtpmail--verify-error-p "host" problems) t))))))
  (test-with-tls-server "self-signed"
    (let ((gnutls-verify-error t))
      (test-with-choice ?s
        (should (string-search "(Variable `gnutls-verify-error' forbids to ask)"
                               (test-error #'test-send-synchronously (test-header))))
        (should-not questions)))))

(ert-deftest test-tls-nsm-exceptions-are-honoured ()
  "As Emacs itself has written them."
  (skip-unless (gnutls-available-p))
  (test-with-tls-server "self-signed"
    (let ((network-security-level 'medium)
          (noninteractive nil)
          (inhibit-message t))
      (cl-letf (((symbol-function 'nsm-query-user) (lambda (&rest _) "always")))
        (delete-process
         (open-network-stream "nsm" nil "localhost" smtpmail-smtp-service :type 'tls))))
    (should (file-exists-p nsm-settings-file))
    (push 1 test-foreign-connections)
    (setq nsm-permanent-host-settings nil
          nsm-temporary-host-settings nil)
    (test-send-synchronously (test-header))
    (should (= 1 (test-received-count)))))

(ert-deftest test-tls-nsm-exceptions-are-for-one-key-and-trouble ()
  (let* ((event (lambda (&rest problems)
                  (list :host "box" :port "25" :problems problems
                        :nsm-fingerprint "sha1:aa" :key-fingerprint "BB:CC")))
         (settings (lambda (&rest settings)
                     (list (append (list :id (nsm-id "box" 25)) settings))))
         (nsm-settings-file (test-file "nsm"))
         (nsm-temporary-host-settings nil)
         (nsm-permanent-host-settings nil))
    (cl-flet ((accepts (settings &rest problems)
                (setq nsm-permanent-host-settings settings)
                (and (rs-smtpmail--nsm-accepts-p (apply event problems)) t)))
      (let ((one (funcall settings :fingerprints '("sha1:aa")
                          :conditions '(:self-signed :no-host-match))))
        (should (accepts one 'self-signed))
        (should (accepts one 'self-signed 'wrong-name))
        (should-not (accepts one 'self-signed 'expired))
        (should-not (accepts one 'changed))
        (should-not (accepts one 'other)))
      (should (accepts (funcall settings :fingerprints '("sha1:00" "sha256:bb:cc")
                                :conditions '(:unknown-ca))
                       'self-signed))
      (should (accepts (funcall settings :fingerprints '("sha1:aa")
                                :conditions '(:verify-cert))
                       'other 'expired))
      (should-not (accepts (funcall settings :fingerprints '("sha1:ab")
                                    :conditions '(:self-signed))
                           'self-signed))
      (should-not (accepts (funcall settings :fingerprints '(:none)
                                    :conditions '(:unencrypted))
                           'self-signed))
      (should-not (accepts nil 'self-signed)))))

(ert-deftest test-tls-client-certificate-from-auth-source ()
  (test-with-server '("--tls" "implicit" "--ask-client-cert" "--mech" "EXTERNAL"
                      "--require-auth" "--auth" "joe:x")
    (let* ((smtpmail-stream-type 'ssl)
           (ca (car gnutls-trustfiles))
           (base (test-file "client"))
           (extensions (test-file "extensions")))
      (with-temp-file extensions (insert "extendedKeyUsage=clientAuth\n"))
      (dolist (command
               (list (format "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=joe -keyout %s.key -out %s.csr" base base)
                     (format "x509 -req -in %s.csr -CA %s -CAkey %s.key -set_serial 2 -days 99 -extfile %s -out %s.crt" base ca ca extensions base)))
        (should (= 0 (apply #'call-process "openssl" nil nil nil (split-string command)))))
      (let* ((entry (format "machine localhost port %d login joe password x smtp-auth external"
                            smtpmail-smtp-service))
             (files (list (concat base ".key") (concat base ".crt")))
             (auth-sources (list (test-file "authinfo"))))
        (unwind-protect
            (progn
              (with-temp-file (car auth-sources)
                (insert entry (apply #'format " key %s cert %s\n" files)))
              (test-send-synchronously (test-header))
              (should (equal "joe" (plist-get (test-received 1) :user)))
              ;; Where it was before Emacs 24.
              (rs-smtp--forget-tls (list :host "localhost" :port smtpmail-smtp-service))
              (auth-source-forget-all-cached)
              (with-temp-file (car auth-sources)
                (insert entry "\n"))
              (let ((smtpmail-starttls-credentials
                     (list (append (list "localhost" smtpmail-smtp-service) files)))
                    (warning-minimum-log-level :emergency)
                    (rs-smtpmail-idle-timeout 0))
                (test-send-synchronously (test-header))
                (should (equal "joe" (plist-get (test-received 2) :user)))))
          (auth-source-forget-all-cached))))))

(ert-deftest test-tls-settings ()
  (let ((gnutls-crlfiles (list (test-file "crl")))
        (gnutls-algorithm-priority "PFS")
        (rs-smtpmail-tls-pins '(("a:1" . "x") ("b:2" "y" "z"))))
    (with-temp-file (car gnutls-crlfiles))
    (let ((settings (rs-smtpmail--settings)))
      (should (equal gnutls-crlfiles (plist-get settings :crl-files)))
      (should (equal "PFS" (plist-get settings :tls-priority)))
      (should (equal '(("a:1" "x") ("b:2" "y" "z")) (plist-get settings :tls-pins))))))

(provide 'test-tls)

;;; test-tls.el ends here
