;;; test-notices.el --- Mode line, desktop and questions  -*- lexical-binding: t; -*-

;; SPDX-License-Identifier: GPL-3.0-or-later

;;; Code:

(require 'helper)
(require 'rs-smtpmail-mode-line)
(require 'rs-smtpmail-notify)
(require 'rs-smtpmail-unconfirmed)

(defun test-notices-add (recipient &optional options)
  "Put a message for RECIPIENT into the spool with OPTIONS; return its id."
  (rs-smtp-send (format "From: me@example.org\nTo: %s\nSubject: A <b> & c\n\nHello\n"
                        recipient)
                "me@example.org" (list recipient)
                (list :host "localhost" :port smtpmail-smtp-service) nil options))

;;;; Mode line

(defun test-notices-mode-line ()
  "Return the count in the mode line, brought up to date."
  (rs-smtpmail--wake)
  (let ((inhibit-message t))
    (rs-smtpmail--handle-events))
  (rs-smtpmail--update-mode-line)
  (substring-no-properties rs-smtpmail--mode-line))

(defmacro test-with-mode-line (&rest body)
  "Run BODY with `rs-smtpmail-mode-line-mode'."
  (declare (indent 0) (debug t))
  `(unwind-protect
       (progn (rs-smtpmail-mode-line-mode 1)
              ,@body)
     (rs-smtpmail-mode-line-mode -1)))

(ert-deftest test-notices-mode-line-counts ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad" :reply "550 No")
                                 '(:stage "rcpt" :match "slow" :reply "451 Later"))
    (test-with-mode-line
      (should (equal "" (test-notices-mode-line)))
      (let ((id (test-notices-add "you@example.com" '(:not-before 4102444800.0)))
            (bad (test-notices-add "bad@example.com")))
        (test-wait-for-state 'scheduled 'failed)
        (should (equal " Outbox:1!1 " (test-notices-mode-line)))
        (test-notices-add "slow@example.com")
        (sink-wait "its being counted"
                   (lambda () (equal " Outbox:2!1 " (test-notices-mode-line))))
        (rs-smtp-queue-hold bad t)
        (should (equal " Outbox:3 " (test-notices-mode-line)))
        (rs-smtp-queue-hold bad nil)
        (rs-smtpmail--changed bad)
        (rs-smtp-queue-remove id)
        (should (equal " Outbox:1!1 " (test-notices-mode-line)))))))

(ert-deftest test-notices-mode-line-of-what-is-sent-at-once ()
  (test-with-server (test-script '(:stage "mail" :hold "gate"))
    (test-with-mode-line
      (test-notices-add "you@example.com")
      (test-wait-for-state 'sending)
      (should (equal "" (test-notices-mode-line)))
      (let ((rs-smtpmail--fresh-seconds 0))
        (should (equal " Outbox:1 " (test-notices-mode-line))))
      (process-send-string test-server "release gate\n")
      (test-received 1)
      (sink-wait "nothing to count"
                 (lambda () (equal "" (test-notices-mode-line)))))))

(ert-deftest test-notices-mode-line-asks-for-what-is-new-only ()
  (test-with-server nil
    (dotimes (_ 5)
      (test-notices-add "you@example.com" '(:not-before 4102444800.0)))
    (test-with-mode-line
      (should (equal " Outbox:5 " (test-notices-mode-line)))
      (let ((id (test-notices-add "you@example.com" '(:not-before 4102444800.0)))
            asked)
        (cl-letf* ((list (symbol-function 'rs-smtp-queue-list))
                   ((symbol-function 'rs-smtp-queue-list)
                    (lambda (&optional id) (push id asked) (funcall list id))))
          (should (equal " Outbox:6 " (test-notices-mode-line)))
          (should (equal (list id) asked)))))))

(ert-deftest test-notices-mode-line-leaves-no-trace ()
  (dolist (before (list nil (default-value 'mode-line-misc-info)))
    (let ((mode-line-misc-info before)
          (timers (length timer-list))
          (hook rs-smtpmail--event-functions)
          (rs-smtpmail-mode nil))
      (rs-smtpmail-mode 1)
      (should rs-smtpmail-mode-line-mode)
      (should-not (equal before mode-line-misc-info))
      (rs-smtpmail-mode -1)
      (should-not rs-smtpmail-mode-line-mode)
      (should (equal before mode-line-misc-info))
      (should (equal hook rs-smtpmail--event-functions))
      (should (= timers (length timer-list)))
      (let ((rs-smtpmail-mode-line nil))
        (rs-smtpmail-mode 1)
        (should-not rs-smtpmail-mode-line-mode)
        (rs-smtpmail-mode -1)))))

(ert-deftest test-notices-mode-line-without-module ()
  (test-with-server nil
    (test-notices-add "you@example.com" '(:not-before 4102444800.0))
    (should (equal "( Outbox:1  nil)"
                   (test-emacs-output
                    '(progn (require 'rs-smtpmail)
                            (rs-smtpmail-mode-line-mode 1)
                            (rs-smtpmail--update-mode-line)
                            (princ (list (substring-no-properties rs-smtpmail--mode-line)
                                         (featurep 'rs-smtpmail-module)))))))))

;;;; Desktop

(ert-deftest test-notices-desktop ()
  (test-with-server (test-script '(:stage "rcpt" :match "bad" :reply "550 <No> & no"))
    (let ((rs-smtpmail-notify '(sent failed))
          notified)
      (cl-letf (((symbol-function 'rs-smtpmail--call-with-desktop) #'funcall)
                ((symbol-function 'notifications-notify)
                 (lambda (&rest parameters) (push parameters notified))))
        (let ((next (lambda ()
                      (sink-wait "a notification" (lambda () notified))
                      (pop notified)))
              (inhibit-message t))
          (test-notices-add "you@example.com")
          (let ((sent (funcall next)))
            (should (equal "Mail sent" (plist-get sent :title)))
            (should (equal "you@example.com (A &lt;b&gt; &amp; c)" (plist-get sent :body))))
          (let* ((id (test-notices-add "bad@example.com"))
                 (failed (funcall next)))
            (should (equal "Mail not sent" (plist-get failed :title)))
            (should (string-match-p "\n.*550 &lt;No&gt; &amp; no" (plist-get failed :body)))
            (save-window-excursion
              (funcall (plist-get failed :on-action) 1 "default")
              (should (equal id (tabulated-list-get-id)))
              (kill-buffer)))
          (setq rs-smtpmail-notify '(failed))
          (test-notices-add "you@example.com")
          (test-received 2)
          (sink-wait "the outcome" (lambda () (= 1 (length (rs-smtp-queue-list)))))
          (rs-smtpmail--wake)
          (rs-smtpmail--handle-events)
          (should-not notified))))))

(ert-deftest test-notices-no-desktop ()
  (dolist (address '("unix:path=/nonexistent" "nonsense" nil))
    (let ((process-environment
           (cons (if address
                     (concat "DBUS_SESSION_BUS_ADDRESS=" address)
                   "DBUS_SESSION_BUS_ADDRESS")
                 process-environment)))
      (should (equal "fine"
                     (test-emacs-output
                      '(progn (require 'rs-smtpmail-notify)
                              (require 'rs-smtpmail-engine)
                              (setq rs-smtpmail-notify '(failed)
                                    noninteractive nil)
                              (rs-smtpmail--notify-about '(:event failed :entry (:id "x")))
                              (setq noninteractive t)
                              (princ "fine"))))))))

;;;; Unconfirmed messages

(defmacro test-with-unconfirmed (count &rest body)
  "Run BODY with COUNT unconfirmed messages in the spool, the user being free."
  (declare (indent 1) (debug t))
  `(test-with-server (test-script '(:stage "final" :times ,count :end "close"))
     (let ((inhibit-message t)
           (rs-smtpmail--to-be-asked nil))
       ;; One after the other: if they all break sessions, the server is put off.
       (dotimes (before ,count)
         (test-notices-add "you@example.com")
         (apply #'test-wait-for-state (make-list (1+ before) 'unconfirmed)))
       (rs-smtpmail--wake)
       (rs-smtpmail--handle-events)
       (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p) #'always))
         (let ((noninteractive nil))
           (rs-smtpmail--look-for-unconfirmed))
         (unwind-protect
             (progn ,@body)
           (when rs-smtpmail--ask-timer
             (cancel-timer rs-smtpmail--ask-timer)))))))

(ert-deftest test-notices-unconfirmed-questions ()
  (test-with-unconfirmed 4
    (let ((answers '("later" "send again" "keep it, on hold"
                     "delete, it was delivered"))
          shown retried)
      (cl-letf (((symbol-function 'rs-smtp-queue-retry)
                 (lambda (id) (push id retried)))
                ((symbol-function 'completing-read)
                 (lambda (_prompt choices &rest _)
                   (with-current-buffer "*Unconfirmed mail*"
                     (push (buffer-string) shown))
                   (should (assoc (car answers) choices))
                   (pop answers))))
        (rs-smtpmail--ask-now))
      (should (= 4 (length shown)))
      (dolist (part '("you@example.com" "A <b> & c" "end of message"))
        (should (string-search part (car shown))))
      (should (equal '(unconfirmed unconfirmed held) (test-states)))
      (should (equal retried (list (plist-get (nth 1 (rs-smtp-queue-list)) :id))))
      ;; "later" means not in this session.
      (should-not rs-smtpmail--to-be-asked)
      (should-not (memq rs-smtpmail--ask-timer timer-idle-list)))))

(ert-deftest test-notices-unconfirmed-quit-means-later ()
  (test-with-unconfirmed 1
    (cl-letf (((symbol-function 'completing-read)
               (lambda (&rest _) (signal 'quit nil))))
      (rs-smtpmail--ask-now))
    (should (equal '(unconfirmed) (test-states)))))

(ert-deftest test-notices-unconfirmed-only-if-still-so ()
  (test-with-unconfirmed 1
    (rs-smtp-queue-hold (car rs-smtpmail--to-be-asked) t)
    (cl-letf (((symbol-function 'completing-read)
               (lambda (&rest _) (ert-fail "asked"))))
      (rs-smtpmail--ask-now))
    (should (equal '(held) (test-states)))))

(ert-deftest test-notices-unconfirmed-waits-for-the-user ()
  (test-with-unconfirmed 1
    (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p) #'ignore)
              ((symbol-function 'completing-read)
               (lambda (&rest _) (ert-fail "asked"))))
      (rs-smtpmail--ask-now))
    (should (= 1 (length rs-smtpmail--to-be-asked)))
    (should (memq rs-smtpmail--ask-timer timer-idle-list))))

(ert-deftest test-notices-unconfirmed-waits-for-a-frame ()
  "In a daemon that has none, whatever an idle timer says."
  (let ((predicate (symbol-function 'rs-smtpmail--user-is-there-p))
        (noninteractive nil)
        after-make-frame-functions
        asked)
    (test-with-unconfirmed 1
      (cl-letf (((symbol-function 'rs-smtpmail--user-is-there-p) predicate)
                ((symbol-function 'completing-read)
                 (lambda (&rest _) (setq asked t) "later"))
                ((symbol-function 'daemonp) #'always)
                ((symbol-function 'terminal-name) (lambda (_) "initial_terminal"))
                ((symbol-function 'recursion-depth) (lambda () 0))
                ((symbol-function 'this-single-command-keys) (lambda () []))
                ((symbol-function 'input-pending-p) #'ignore))
        (rs-smtpmail--ask-now)
        (should-not asked)
        (should (= 1 (length rs-smtpmail--to-be-asked)))
        (should-not (memq rs-smtpmail--ask-timer timer-idle-list))
        (cl-letf (((symbol-function 'terminal-name) (lambda (_) "/dev/pts/0")))
          (run-hook-with-args 'after-make-frame-functions (selected-frame))
          (sink-wait "the idle timer"
                     (lambda () (memq rs-smtpmail--ask-timer timer-idle-list)))
          (rs-smtpmail--ask-now)
          (should asked))))))

(ert-deftest test-notices-unconfirmed-is-asked-when-wanted ()
  (let ((rs-smtpmail--to-be-asked nil)
        (rs-smtpmail--ask-timer nil)
        (noninteractive nil)
        (timers (length timer-idle-list)))
    (let ((rs-smtpmail-unconfirmed 'retry))
      (rs-smtpmail--ask-about '("x")))
    (let ((noninteractive t))
      (rs-smtpmail--ask-about '("x")))
    (should-not rs-smtpmail--to-be-asked)
    (should (= timers (length timer-idle-list)))
    (rs-smtpmail--ask-about '("x"))
    (rs-smtpmail--ask-about '("y" "x"))
    (should (equal '("x" "y") rs-smtpmail--to-be-asked))
    (should (= (1+ timers) (length timer-idle-list)))
    (cancel-timer rs-smtpmail--ask-timer)))

;;;; Many messages, one trouble

(ert-deftest test-notices-one-warning-for-a-server-that-is-down ()
  (test-with-server (test-script '(:stage "greeting" :reply "421 4.3.2 Down" :then "close"))
    (let* ((rs-smtpmail-synchronous nil)
           (rs-smtpmail--told-troubles nil)
           (warnings
            (test-with-warnings
              (dotimes (number 5)
                (test-send #'rs-smtpmail-send-it
                           (test-header (format "To: a%d@x.org" number))))
              (sink-wait "five tries"
                         (lambda ()
                           (= 5 (seq-count (lambda (entry)
                                             (> (plist-get entry :attempts) 0))
                                           (rs-smtp-queue-list)))))
              (rs-smtpmail--wake)
              (rs-smtpmail--handle-events))))
      (should (equal 1 (length warnings)))
      (should (string-search "421 4.3.2 Down" (car warnings))))))

;;; test-notices.el ends here
