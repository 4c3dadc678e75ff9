;;; test-processes.el --- What takes an Emacs of its own  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)

(defmacro test-with-own-spool (&rest body)
  "Run BODY with `rs-smtpmail-spool-directory' a new one, for other processes."
  (declare (indent 0))
  `(let ((rs-smtpmail-spool-directory (file-name-as-directory (test-file "spool"))))
     ,@body))

(defun test-stored-entries ()
  "Return the number of entries in the spool of other processes."
  (let ((queue (expand-file-name "queue" rs-smtpmail-spool-directory)))
    (if (file-directory-p queue)
        (length (directory-files queue nil "\\`[^.]"))
      0)))

(defconst test-send-form
  '(with-temp-buffer
     (insert "From: me@example.org\nTo: you@example.com\nSubject: Test\n"
             mail-header-separator "\nHello\n")
     (rs-smtpmail-send-it))
  "A form that sends a mail.")

;;;; Loading

(ert-deftest test-processes-loading-does-nothing ()
  (test-with-own-spool
    (let ((output
           (test-emacs-output
            '(let ((timers (length timer-list)))
               (require 'rs-smtpmail)
               (require 'rs-smtpmail-build)
               (require 'rs-smtpmail-queue)
               (require 'rs-smtpmail-engine)
               (princ (list (featurep 'rs-smtpmail-module) (process-list)
                            (- (length timer-list) timers)
                            (file-exists-p rs-smtpmail-spool-directory)
                            (advice--p (symbol-function 'smtpmail-via-smtp))
                            kill-emacs-query-functions))))))
      (should (equal "(nil nil 0 nil nil nil)" output)))))

(ert-deftest test-processes-native-functions-work-after-require ()
  (test-with-server nil
    (test-with-own-spool
      (should (equal "t (a@x)"
                     (test-emacs-output
                      '(progn
                         (require 'rs-smtpmail)
                         (princ (equal (rs-smtp-version) rs-smtpmail-version))
                         (princ " ")
                         (princ (rs-smtp-parse-addresses "A <a@x>"))))))
      (test-emacs-output
       '(let (event)
          (require 'rs-smtpmail)
          (rs-smtp-send "Subject: x\n\nHello\n" "me@example.org" '("you@example.com")
                        (list :host "localhost" :port smtpmail-smtp-service)
                        (lambda (outcome) (setq event outcome)))
          (while (not event) (accept-process-output nil 0.1))))
      (should (= 1 (test-received-count))))))

(defun test-lisp-copy ()
  "Return a new directory with a copy of the Lisp files, without module."
  (let ((directory (test-new-directory "lisp")))
    (dolist (file (directory-files (expand-file-name "lisp" test-root) t "\\.el\\'"))
      (copy-file file directory))
    directory))

(defun test-module-error (directory)
  "Return the error of using the module with the Lisp files in DIRECTORY."
  (test-with-own-spool
    (test-emacs-output
     `(progn
        (setq load-path (cons ,directory (seq-remove (lambda (element)
                                                       (string-search "rs-smtpmail"
                                                                      element))
                                                     (cdr (cdr load-path)))))
        (require 'rs-smtpmail)
        (condition-case err
            (rs-smtp-version)
          (error (princ (error-message-string err))))
        (when (featurep 'rs-smtpmail-module)
          (princ "mapped"))
        (princ (autoloadp (symbol-function 'rs-smtp-send)))))))

(ert-deftest test-processes-missing-module ()
  (let* ((directory (test-lisp-copy))
         (text (test-module-error directory)))
    (should (string-search directory text))
    (should (string-search "M-x rs-smtpmail-compile-module" text))
    (should (string-suffix-p "t" text))))

(ert-deftest test-processes-module-of-another-version ()
  "It is not even looked at."
  (let* ((directory (test-lisp-copy)))
    (with-temp-file (expand-file-name (concat "rs-smtpmail-module" module-file-suffix)
                                      directory)
      (insert "No module at all"))
    (with-temp-file (expand-file-name "rs-smtpmail-module.version" directory)
      (insert "0.0.9\n"))
    (let ((text (test-module-error directory)))
      (should (string-search "0.0.9" text))
      (should (string-search rs-smtpmail-version text))
      (should (string-search "M-x rs-smtpmail-compile-module" text))
      (should-not (string-search "mapped" text)))))

(ert-deftest test-processes-module-elsewhere-on-load-path ()
  (let ((directory (test-lisp-copy))
        (elsewhere (test-new-directory "elsewhere")))
    (dolist (suffix (list module-file-suffix ".version"))
      (let ((file (concat "rs-smtpmail-module" suffix)))
        (copy-file (expand-file-name file (expand-file-name "lisp" test-root))
                   elsewhere)))
    (should (equal "t"
                   (test-emacs-output
                    `(progn
                       (setq load-path (append (list ,directory)
                                               (cdr (cdr load-path))
                                               (list ,elsewhere)))
                       (require 'rs-smtpmail)
                       (princ (equal (rs-smtp-version) rs-smtpmail-version))))))))

(ert-deftest test-processes-module-assertions ()
  (test-with-server nil
    (test-with-own-spool
      (test-emacs-output
       `(progn
          (require 'rs-smtpmail)
          (rs-smtpmail-mode 1)
          (dotimes (_ 3) ,test-send-form)
          (garbage-collect)
          (should-error (rs-smtp-parse-addresses "a b@c"))
          (rs-smtp-queue-list)
          (rs-smtpmail-send-queued-mail))
       '("--module-assertions" "-l" "ert"))
      (should (= 3 (test-received-count))))))

;;;; Batch

(ert-deftest test-processes-batch-emacs-waits ()
  (test-with-server nil
    (test-with-own-spool
      (test-emacs-output `(progn (require 'rs-smtpmail) ,test-send-form))
      (should (= 1 (test-received-count)))
      (should (= 0 (test-stored-entries))))))

(ert-deftest test-processes-batch-emacs-fails ()
  (test-with-server (append '("--require-auth")
                            (test-script '(:stage "rcpt" :reply "550 No such user")))
    (test-with-own-spool
      (let ((result (test-finish
                     (test-emacs `(progn (require 'rs-smtpmail) ,test-send-form)))))
        (should-not (eq 0 (car result)))
        (should (string-search "Sending failed: " (cdr result))))
      (should (= 1 (test-stored-entries))))))

;;;; Crashes and restarts

(defun test-leave-one-behind (how)
  "Have another Emacs accept a mail and end as HOW says, before it is sent."
  (let ((other (test-emacs `(progn
                              (require 'rs-smtpmail)
                              (setq rs-smtpmail-synchronous nil)
                              ,test-send-form
                              ,how))))
    (test-finish other)
    ;; It may have ended before it connected: the server's first connection, which
    ;; hangs, must not be the next Emacs's.
    (delete-process (open-network-stream "first" nil "localhost"
                                         smtpmail-smtp-service))
    (should (= 0 (test-received-count)))
    (should (= 1 (test-stored-entries)))))

(ert-deftest test-processes-killed-emacs ()
  (test-with-server (test-script '(:stage "greeting" :connection 1 :end "hang"))
    (test-with-own-spool
      (test-leave-one-behind '(signal-process (emacs-pid) 'SIGKILL))
      (test-emacs-output '(progn (require 'rs-smtpmail)
                                 (rs-smtpmail-send-queued-mail)))
      (should (string-suffix-p "\r\n\r\nHello\r\n" (plist-get (test-received 1) :bytes)))
      (should (= 1 (test-received-count)))
      (should (= 0 (test-stored-entries))))))

(ert-deftest test-processes-emacs-left-in-the-middle ()
  (test-with-server (test-script '(:stage "greeting" :connection 1 :end "hang"))
    (test-with-own-spool
      (test-leave-one-behind '(kill-emacs))
      (test-emacs-output
       '(progn (require 'rs-smtpmail)
               (rs-smtpmail-resume)
               (while (rs-smtp-queue-list) (accept-process-output nil 0.05))))
      (should (= 1 (test-received-count))))))

(ert-deftest test-processes-first-send-resumes ()
  (test-with-server (test-script '(:stage "greeting" :connection 1 :end "hang"))
    (test-with-own-spool
      (test-leave-one-behind '(kill-emacs))
      (test-emacs-output
       `(progn (require 'rs-smtpmail)
               ,test-send-form
               (while (rs-smtp-queue-list) (accept-process-output nil 0.05))))
      (should (= 2 (test-received-count))))))

(ert-deftest test-processes-mode-looks-into-the-spool ()
  (test-with-server (test-script '(:stage "greeting" :connection 1 :end "hang"))
    (test-with-own-spool
      ;; Without anything there it does not even load the module.
      (should (equal "nil"
                     (test-emacs-output
                      '(progn (require 'rs-smtpmail)
                              (rs-smtpmail-mode 1)
                              (funcall (timer--function rs-smtpmail--spool-timer))
                              (princ (featurep 'rs-smtpmail-module))))))
      (test-leave-one-behind '(kill-emacs))
      (test-emacs-output
       '(progn (require 'rs-smtpmail)
               (rs-smtpmail-mode 1)
               (funcall (timer--function rs-smtpmail--spool-timer))
               (while (rs-smtp-queue-list) (accept-process-output nil 0.05))))
      (should (= 1 (test-received-count))))))

(ert-deftest test-processes-several-on-one-spool ()
  "Each message is sent once, and each waits for all of them."
  (test-with-server nil
    (test-with-own-spool
      (let ((count 20))
        (test-emacs-output
         `(progn (require 'rs-smtpmail)
                 (setq smtpmail-queue-mail t)
                 (dotimes (_ ,count) ,test-send-form)))
        (let ((others (mapcar (lambda (_)
                                (test-emacs
                                 '(progn
                                    (require 'rs-smtpmail)
                                    (setq create-lockfiles t)
                                    (condition-case err
                                        (rs-smtpmail-send-queued-mail)
                                      (user-error
                                       (message "%S" err)
                                       (rs-smtp-queue-flush)
                                       (while (rs-smtp-queue-list)
                                         (accept-process-output nil 0.05)))))))
                              '(1 2 3))))
          (dolist (other others)
            (let ((result (test-finish other)))
              (ert-info ((cdr result) :prefix "Output: ")
                (should (eq 0 (car result)))))))
        (should (= count (test-received-count)))
        (should (= 0 (test-stored-entries)))))))

;;;; Leaving

(defun test-leave (choice)
  "Try to leave Emacs, choosing CHOICE; return the answer of the hook."
  (let ((noninteractive nil))
    (cl-letf (((symbol-function 'read-multiple-choice)
               (lambda (_prompt choices) (assq choice choices)))
              ((symbol-function 'yes-or-no-p) (lambda (_) nil)))
      (run-hook-with-args-until-failure 'kill-emacs-query-functions))))

(ert-deftest test-processes-leaving-with-mail-in-flight ()
  (test-with-server (test-script '(:stage "greeting" :hold "gate"))
    (let ((rs-smtpmail-synchronous nil))
      (test-send #'rs-smtpmail-send-it (test-header))
      (should-not (test-leave ?c))
      (should (test-leave ?l))
      (should (= 1 (length (rs-smtp-queue-list))))
      (run-at-time 0.1 nil #'process-send-string test-server "release gate\n")
      (should (test-leave ?w))
      (should (= 1 (test-received-count)))
      (should-not (rs-smtp-queue-list))
      ;; Nothing in flight: no question.
      (should (test-leave ?c)))))

(ert-deftest test-processes-leaving-by-keys ()
  "With the real question, which takes a terminal."
  (skip-unless (not noninteractive))
  (test-with-server (test-script '(:stage "greeting" :hold "gate"))
    (let ((rs-smtpmail-synchronous nil))
      (test-send #'rs-smtpmail-send-it (test-header))
      (cl-flet ((leave (key)
                  (let ((unread-command-events (list key)))
                    (run-hook-with-args-until-failure 'kill-emacs-query-functions))))
        (should-not (leave ?c))
        (should (leave ?l))
        (run-at-time 0.1 nil #'process-send-string test-server "release gate\n")
        (should (leave ?w)))
      (should (= 1 (test-received-count))))))

(ert-deftest test-processes-leaving-waits-for-a-failure ()
  (test-with-server (test-script '(:stage "greeting" :hold "gate")
                                 '(:stage "mail" :reply "550 No"))
    (let ((rs-smtpmail-synchronous nil))
      (test-send #'rs-smtpmail-send-it (test-header))
      (run-at-time 0.1 nil #'process-send-string test-server "release gate\n")
      (should-not (test-leave ?w))
      (should (equal '(failed) (test-states))))))

(provide 'test-processes)

;;; test-processes.el ends here
