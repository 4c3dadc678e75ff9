;;; test-watch.el --- Trace, progress, checks, notifications  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-watch)

(ert-deftest test-watch-trace ()
  (let ((buffer (get-buffer-create "*trace of SMTP session to localhost*")))
    (unwind-protect
        (test-with-server nil
          (test-send-synchronously (test-header))
          (should (equal "" (with-current-buffer buffer (buffer-string))))
          (let ((smtpmail-debug-info t))
            (test-send-synchronously (test-header)))
          (with-current-buffer buffer
            (dolist (line '("EHLO " "MAIL FROM:<me@example.org>" "250 2.0.0 "))
              (goto-char (point-min))
              (should (search-forward line nil t)))))
      (kill-buffer buffer))))

(ert-deftest test-watch-check ()
  (test-with-server '("--tls" "starttls")
    (let ((buffer (rs-smtpmail-check-server (list :host "localhost"
                                                  :port smtpmail-smtp-service))))
      (unwind-protect
          (with-current-buffer buffer
            (sink-wait "the check's end"
                       (lambda ()
                         (goto-char (point-min))
                         (search-forward "done: the server answers; no password" nil t)))
            (dolist (line '("ok      connecting: " "ok      TLS handshake: TLS 1.3"
                            "ok      AUTH: offered; no password is stored"))
              (goto-char (point-min))
              (should (search-forward line nil t)))
            (should-not rs-smtpmail--checks))
        (kill-buffer buffer))
      (should (= 0 (test-received-count))))))

(ert-deftest test-watch-check-fails ()
  ;; A label too long for the resolver to ask anybody.
  (let ((buffer (rs-smtpmail-check-server
                 (list :host (concat (make-string 64 ?x) ".invalid") :port 25))))
    (unwind-protect
        (with-current-buffer buffer
          (sink-wait "the check's end"
                     (lambda ()
                       (goto-char (point-min))
                       (search-forward "FAILED  looking up the host: " nil t))))
      (kill-buffer buffer))))

(ert-deftest test-watch-dsn ()
  (test-with-server nil
    (let ((rs-smtpmail-synchronous t))
      (with-temp-buffer
        (mail-mode)
        (rs-smtpmail-request-dsn)
        (test-insert-mail (test-header) "Hello\n")
        (rs-smtpmail-send-it)))
    (should (member "RET=HDRS" (plist-get (test-received 1) :parameters)))
    (should-error (let ((rs-smtpmail-dsn '(:ret everything)))
                    (test-send-synchronously (test-header)))
                  :type 'rs-smtp-config-error)))

(ert-deftest test-watch-progress ()
  (let (messages)
    (cl-letf (((symbol-function 'message)
               (lambda (format &rest arguments)
                 (push (apply #'format format arguments) messages)))
              ((symbol-function 'current-message) #'ignore))
      (rs-smtpmail--show-progress '(:event progress :id "x" :sent 250 :total 1000)))
    (should (string-match-p "25%" (car messages)))
    (should (equal '(250 . 1000) (gethash "x" rs-smtpmail--progress)))
    (rs-smtpmail--forget-progress "x")
    (should-not (gethash "x" rs-smtpmail--progress))))

;;; test-watch.el ends here
